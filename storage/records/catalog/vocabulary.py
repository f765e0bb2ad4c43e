"""The catalogue's enumerations, spelt as Civitai's clients spell them."""

from __future__ import annotations

from enum import IntFlag, StrEnum


class ModelType(StrEnum):
    """What a model is."""

    CHECKPOINT = "Checkpoint"
    TEXTUAL_INVERSION = "TextualInversion"
    HYPERNETWORK = "Hypernetwork"
    AESTHETIC_GRADIENT = "AestheticGradient"
    LORA = "LORA"
    LOCON = "LoCon"
    DORA = "DoRA"
    CONTROLNET = "Controlnet"
    UPSCALER = "Upscaler"
    MOTION_MODULE = "MotionModule"
    VAE = "VAE"
    TEXT_ENCODER = "TextEncoder"
    UNET = "UNet"
    CLIP_VISION = "CLIPVision"
    POSES = "Poses"
    WILDCARDS = "Wildcards"
    WORKFLOWS = "Workflows"
    COMFY_WORKFLOWS = "ComfyWorkflows"
    DETECTION = "Detection"
    VISION_LANGUAGE = "VisionLanguage"
    CLIP = "CLIP"
    LLM = "LLM"
    OTHER = "Other"


class Status(StrEnum):
    """Where a model or a version is in its life."""

    DRAFT = "Draft"
    SCHEDULED = "Scheduled"
    PUBLISHED = "Published"
    UNPUBLISHED = "Unpublished"
    UNPUBLISHED_VIOLATION = "UnpublishedViolation"
    DELETED = "Deleted"


class Availability(StrEnum):
    """Who finds what is published: everybody, everybody who knows its id or hash, its owner."""

    PUBLIC = "Public"
    UNSEARCHABLE = "Unsearchable"
    PRIVATE = "Private"


class ModelMode(StrEnum):
    """Archived: shown without files, in no list unless asked for. TakenDown: gone, by a moderator."""

    ARCHIVED = "Archived"
    TAKEN_DOWN = "TakenDown"


class UploadType(StrEnum):
    """Made elsewhere and uploaded, or trained here."""

    CREATED = "Created"
    TRAINED = "Trained"


class CheckpointType(StrEnum):
    """How a checkpoint came about."""

    TRAINED = "Trained"
    MERGE = "Merge"


class CommercialUse(StrEnum):
    """What others may earn money with."""

    NONE = "None"
    IMAGE = "Image"
    RENT_CIVIT = "RentCivit"
    RENT = "Rent"
    SELL = "Sell"


class BaseModelType(StrEnum):
    """What a version's base is made for."""

    STANDARD = "Standard"
    INPAINTING = "Inpainting"
    REFINER = "Refiner"
    PIX2PIX = "Pix2Pix"


class FileType(StrEnum):
    """What a file of a version holds."""

    MODEL = "Model"
    TEXT_ENCODER = "Text Encoder"
    VISION_ENCODER = "Vision Encoder"
    PRUNED_MODEL = "Pruned Model"
    NEGATIVE = "Negative"
    TRAINING_DATA = "Training Data"
    VAE = "VAE"
    CONFIG = "Config"
    ARCHIVE = "Archive"
    UNET = "UNet"
    DIFFUSION_MODEL = "Diffusion Model"
    CLIP_VISION = "CLIPVision"
    CONTROLNET = "ControlNet"
    WORKFLOW = "Workflow"
    UPSCALER = "Upscaler"
    ENHANCEMENT_LORA = "Enhancement LoRA"
    OTHER = "Other"


class SizeKind(StrEnum):
    """Whether a weights file holds everything that training used, or what drawing needs."""

    FULL = "full"
    PRUNED = "pruned"


class Precision(StrEnum):
    """What the numbers of a weights file are."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    MXFP8 = "mxfp8"
    FP8_MIXED = "fp8_mixed"
    FP8_SCALED = "fp8_scaled"
    FP8 = "fp8"
    INT8 = "int8"
    NF4 = "nf4"
    NVFP4 = "nvfp4"
    INT4 = "int4"


class BrowsingLevel(IntFlag):
    """How explicit something is. A model's level is every bit of its images; a filter matches when it shares one."""

    PG = 1
    PG13 = 2
    R = 4
    X = 8
    XXX = 16
    BLOCKED = 32


BASE_MODELS: dict[str, str] = {
    "SD 1.4": "sd1",
    "SD 1.5": "sd1",
    "SD 1.5 LCM": "sd1",
    "SD 1.5 Hyper": "sd1",
    "SD 2.0": "sd2",
    "SD 2.1": "sd2",
    "SDXL 1.0": "sdxl",
    "SDXL Lightning": "sdxl",
    "SDXL Hyper": "sdxl",
    "SDXL Turbo": "sdxl",
    "Pony": "sdxl",
    "Illustrious": "sdxl",
    "NoobAI": "sdxl",
    "SD 3": "sd3",
    "SD 3.5 Medium": "sd3",
    "SD 3.5 Large": "sd3",
    "Flux.1 S": "flux1",
    "Flux.1 D": "flux1",
    "Flux.1 Kontext": "flux1",
    "Flux.2 D": "flux2",
    "Qwen": "qwen",
    "ZImageTurbo": "zimageturbo",
    "Chroma": "chroma",
    "HiDream": "hidream",
    "Kolors": "kolors",
    "AuraFlow": "auraflow",
    "PixArt a": "pixarta",
    "Stable Cascade": "scascade",
    "Hunyuan Video": "hyv1",
    "Wan Video": "wanvideo",
    "LTXV": "ltxv",
    "SVD": "svd",
    "Other": "other",
}
"""The catalogue names of base models, which clients filter by, and the family of each, its ecosystem in an AIR. Another
name is allowed: base models are added faster than this table."""
