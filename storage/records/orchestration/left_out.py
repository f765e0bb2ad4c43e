"""What clients of Civitai's orchestration can ask for and this platform does not do, each by its name."""

from __future__ import annotations

from collections.abc import Mapping

STEP_TYPES = ("textToImage", "imageGen", "imageUpscaler")
"""What is drawn here."""
ENGINES = ("sdcpp", "comfy")
"""Engines of `imageGen` whose requests are drawn here."""

_GRAPHS = "runs a graph of the caller's own, which is not taken here"
_ELSEWHERE = {
    "imageUpload": "is no step of a workflow here; send the picture to POST /v2/consumer/blobs first",
    "imageResourceTraining": "trains, which is POST /api/v1/training-jobs here",
    "training": "trains, which is POST /api/v1/training-jobs here",
    "comfy": _GRAPHS,
    "customComfy": _GRAPHS,
}
KNOWN_TYPES = frozenset(
    (
        *("aceStepAudio", "ageClassification", "audioCaptioning", "audioMix", "batchOCRSafetyClassification"),
        *("blobArchive", "chatCompletion", "comfy", "comfyNodepackSnapshot", "composeMedia", "convertImage"),
        *("customComfy", "echo", "humanoidImageMask", "imageBackgroundRemoval", "imageResourceTraining"),
        *("imageToSvg", "imageUpload", "mediaCaptioning", "mediaHash", "mediaRating", "model3DPreview"),
        *("modelClamScan", "modelHash", "modelParseMetadata", "modelPickleScan", "polyGen", "preprocessImage"),
        *("promptEnhancement", "qwenImageBench", "repeat", "shieldstralModeration", "textToSpeech", "training"),
        *("transcode", "transcription", "tryOnU", "videoBackgroundRemoval", "videoEnhancement"),
        *("videoFrameExtraction", "videoGen", "videoInterpolation", "videoMetadata", "videoUpscaler"),
        *("wdTagging", "xGuardModeration"),
    )
)
"""Types of steps that Civitai has and this platform does not draw."""


def why_not(kind: str) -> str:
    """Why a type of step is not drawn here."""
    if kind in KNOWN_TYPES:
        reason = _ELSEWHERE.get(kind, "is nothing that this platform does")
        return f"'{kind}' {reason}. Steps here are: {', '.join(STEP_TYPES)}"
    return f"'{kind}' is no type of step. Steps here are: {', '.join(STEP_TYPES)}"


NOT_FOR_THE_WORKFLOW: Mapping[str, str] = {
    "callbacks": "are not called; register a webhook at PUT /api/v1/notifications/channels/webhook, or ask with `wait`",
    "arguments": "fill placeholders in steps, which are not read here; write the values into the steps",
    "ephemeral": "a workflow is always kept here; DELETE it when it has ended",
    "tips": "nobody is tipped here; leave it out",
}
IGNORED = ("currencies", "experimental", "upgrade_mode", "nsfw_level")
"""Fields of a workflow that change nothing of what is drawn here, nor what it costs."""
IGNORED_OF_STEPS = ("timeout", "retries")
UNRATED = "pictures are not rated here, so that none can be left out for what it shows; leave it out"
NOT_FOR_AN_INPUT: Mapping[str, str] = {
    "control_nets": "ControlNets are not drawn with here",
    "image_metadata": "nothing of the caller's is written into pictures here; put it into the step's `metadata`",
    "vae_model": "a model is drawn with the VAE that it was published with",
    "embeddings": "textual inversions are not drawn with here",
}
"""Fields of a step's input that would change its pictures, had they an effect."""
