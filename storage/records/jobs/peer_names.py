"""What kohya's scripts, OneTrainer and diffusers' examples call the fields of a request: who brings a file of theirs
reads ours.

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
        "mixedprecision": "it is precision here; with the method lora also set frozenPrecision, which holds the base "
        "in 16 bits as those scripts do",
        "fp8base": "there is no fp8; frozenPrecision holds the base in bf16 or fp16",
        "weightdtype": "it is frozenPrecision here",
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
        "saveeverynepochs": "it is keepEveryEpochs here",
        "validationprompt": "it is evaluationScenes here",
        "outputname": "it is name here",
        "duration": "a job is as long as its steps",
        "maxtrainepochs": "a job counts steps: epochs times photos, divided by batchSize and accumulation",
        "numtrainepochs": "a job counts steps: epochs times photos, divided by batchSize and accumulation",
        "use8bitadam": "it is optimizer: adamw_8bit here",
        "optimizerargs": "they are weightDecay and other fields of their own here",
        "reportto": "MLflow always has the job; others are named by DARKROOM_TRACKING__TRACKERS where a worker starts",
        "logwith": "MLflow always has the job; others are named by DARKROOM_TRACKING__TRACKERS where a worker starts",
        "traintextencoder": "it is textEncoderLearningRate here; 0 keeps the text encoder",
        "networktrainunetonly": "it is textEncoderLearningRate: 0 here",
        "clipskip": "prompts are encoded as the base model's own pipeline does it; no layer can be left out",
        "networkmodule": "it is method: lora here",
        "networkargs": "they are loraConv, loraDora, loraTargets and loraDropout here",
        "networkweights": "a job starts from its base model alone",
        "instancedatadir": "photos are the first argument of `darkroom train`, or uploaded and named by dataSetId",
        "traindatadir": "photos are the first argument of `darkroom train`, or uploaded and named by dataSetId",
        "classdatadir": "class images are drawn from the base model; regularizationCount says how many",
        "regdatadir": "class images are drawn from the base model; regularizationCount says how many",
        "outputdir": "the result is in the catalogue; `darkroom download` writes it to a folder",
        "cachelatents": "latents are always cached; cachedCrops says how many crops of a photo",
        "cachelatentstodisk": "latents are always cached; cachedCrops says how many crops of a photo",
        "shufflecaption": "captions are learned as they are written",
    }
)
