"""A version's files as clients choose among them: which is primary, which fits, what each is called; and AIR names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from storage.records.catalog.catalog import FileRole, Model, ModelVersion, VersionFile
from storage.records.catalog.vocabulary import BASE_MODELS, FileType, ModelType

PRIMARY_TYPES = frozenset({FileType.MODEL, FileType.PRUNED_MODEL, FileType.UNET, FileType.DIFFUSION_MODEL})

_AIR_TYPES = {
    ModelType.CHECKPOINT: "checkpoint",
    ModelType.TEXTUAL_INVERSION: "embedding",
    ModelType.HYPERNETWORK: "hypernet",
    ModelType.AESTHETIC_GRADIENT: "ag",
    ModelType.LORA: "lora",
    ModelType.LOCON: "lycoris",
    ModelType.DORA: "dora",
    ModelType.CONTROLNET: "controlnet",
    ModelType.UPSCALER: "upscaler",
    ModelType.MOTION_MODULE: "motion",
    ModelType.VAE: "vae",
    ModelType.TEXT_ENCODER: "text_encoders",
    ModelType.UNET: "unet",
    ModelType.CLIP: "clip",
    ModelType.CLIP_VISION: "clipvision",
    ModelType.VISION_LANGUAGE: "visionlanguage",
}


class VariantPreference(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant of a file a client likes best."""

    format: str = "SafeTensor"
    size: str = "pruned"
    fp: str = "fp16"
    quant_type: str = "Q4_K_M"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a download names; None leaves it open. What is named must fit."""

    file_id: int | None = None
    type: str | None = None
    format: str | None = None
    size: str | None = None
    fp: str | None = None
    quant_type: str | None = None

    def fits(self, file: VersionFile) -> bool:
        """Whether a file is everything that is asked for, in any case."""
        pairs = (
            (self.type, file.type.value),
            (self.format, file.format),
            (self.size, file.size_kind),
            (self.fp, file.fp),
            (self.quant_type, file.quant_type),
        )
        named = all(asked is None or asked.lower() == (has or "").lower() for asked, has in pairs)
        return named and self.file_id in (None, file.id)


def score(file: VersionFile, liked: VariantPreference) -> float:
    """How well a file suits; the highest is primary. Civitai's weights."""
    parts = (
        (100.0, file.format, liked.format),
        (10.0, file.size_kind, liked.size),
        (1.0, file.fp, liked.fp),
        (0.5, file.quant_type, liked.quant_type),
    )
    points = 2000.0 if file.type in PRIMARY_TYPES else 1000.0
    for weight, has, likes in parts:
        if has is not None:
            points += weight if has.lower() == likes.lower() else -weight
    return points


def public_files(files: Sequence[VersionFile]) -> list[VersionFile]:
    """Those that clients call a version's files: not the diffusers folder's, not what is private."""
    return [file for file in files if file.role is FileRole.WEIGHTS and file.visibility == "Public"]


# B008: the default is frozen, so that it can be shared by all calls.
def primary_file(files: Sequence[VersionFile], liked: VariantPreference = VariantPreference()) -> VersionFile | None:  # noqa: B008
    """The file that a version's bare address serves: the best, then the oldest. None when nothing can be one."""
    candidates = [file for file in public_files(files) if file.type is not FileType.TRAINING_DATA]
    return max(candidates, key=lambda file: (score(file, liked), -file.id), default=None)


def download_name(model: Model, version: ModelVersion, file: VersionFile) -> str:
    """What a file is saved as."""
    if file.override_name:
        return file.override_name
    own = file.path.rsplit("/", 1)[-1]
    if model.type in (ModelType.LORA, ModelType.LOCON) and version.job_id is None:
        return own
    extension = own.rsplit(".", 1)[-1] if "." in own else "safetensors"
    text = model.name
    if model.type is ModelType.TEXTUAL_INVERSION and version.trained_words:
        return f"{_slug(version.trained_words[0])}{'-neg' if file.type is FileType.NEGATIVE else ''}.{extension}"
    if file.type is FileType.TRAINING_DATA:
        return f"{_slug(text)}_{_slug(version.name)}_trainingData.zip"
    suffix = "" if file.type is FileType.MODEL else f"_{_slug(file.type)}"
    return f"{_slug(text)}_{_slug(version.name)}{suffix}.{extension}"


def air(model: Model, version: ModelVersion, primary: VersionFile | None) -> str:
    """A version's AIR: urn:air:ECOSYSTEM:TYPE:civitai:MODEL@VERSION."""
    kind = _AIR_TYPES.get(model.type, "unknown")
    if primary is not None and primary.type in (FileType.DIFFUSION_MODEL, FileType.UNET):
        kind = "diffusionmodel" if primary.type is FileType.DIFFUSION_MODEL else "unet"
    ecosystem = BASE_MODELS.get(version.base_model, "other")
    return f"urn:air:{ecosystem}:{kind}:civitai:{model.id}@{version.id}"


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-_") or "model"
