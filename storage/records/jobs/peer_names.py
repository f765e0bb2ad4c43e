"""What kohya's scripts and diffusers' examples call the fields of a request: who brings a file of theirs reads ours.

Keys are in small letters without marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PEER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "resolution": "a job has the resolution of its base model; for other shapes see bucketing",
        "pretrainedmodelnameorpath": "it is baseModel here, the name of a registered one",
        "maxtrainsteps": "it is steps here",
        "trainbatchsize": "it is batchSize here",
        "gradientaccumulationsteps": "it is accumulation here",
        "lr": "it is learningRate here",
        "unetlr": "it is learningRate here",
        "textencoderlr": "it is textEncoderLearningRate here",
        "lrscheduler": "it is learningRateSchedule here",
        "lrwarmupsteps": "it is warmUpSteps here",
        "optimizertype": "it is optimizer here",
        "mixedprecision": "it is precision here",
        "saveprecision": "it is exportDtype here",
        "maxgradnorm": "it is maxGradientNorm here",
        "minsnrgamma": "it is snrGamma here",
        "networkdim": "it is loraRank here",
        "networkalpha": "it is loraAlpha here",
        "networkdropout": "it is loraDropout here",
        "rank": "it is loraRank here",
        "numclassimages": "it is regularizationCount here",
        "withpriorpreservation": "it is priorLossWeight here; 0 is without",
        "instanceprompt": "prompts are made of identifier and classWord; photos may have captions",
        "classprompt": "it is made of classWord",
        "enablebucket": "it is bucketing here",
        "bucketresosteps": "it is bucketStep here",
        "minbucketreso": "it is bucketMinSide here",
        "maxbucketreso": "it is bucketMaxSide here",
        "flipaug": "it is randomFlip here",
        "captiondropoutrate": "it is captionDropout here",
        "checkpointingsteps": "it is checkpointEvery here",
        "saveeverynsteps": "it is checkpointEvery here, and keepEvery for those that stay",
        "validationprompt": "it is evaluationScenes here",
        "outputname": "it is name here",
        "duration": "a job is as long as its steps",
    }
)
