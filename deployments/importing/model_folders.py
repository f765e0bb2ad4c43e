"""A folder of model files as the catalogue would have it: each model with one version, its files and its fields."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deployments.client.downloads import hash_file
from deployments.importing.model_metadata import Described, describe, plain_tags
from deployments.importing.sidecars import Sidecar, preview_of, sidecar_of
from storage.blobs.families import check_model_file
from storage.blobs.other_formats import PICKLE_SUFFIXES, refuse_other_name
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.catalog.uploads import MAX_NAME
from storage.records.catalog.vocabulary import BASE_MODELS, FileType, ModelType

_MODEL_SUFFIXES = PICKLE_SUFFIXES | {".safetensors", ".gguf", ".onnx", ".h5"}
_VARIANT = re.compile(r"[-_. ]?(fp16|bf16|fp32|fp8|pruned|full|ema|no-?ema|emaonly)$", re.IGNORECASE)


@dataclass(frozen=True)
class FoundFile:
    """A sound model file, its SHA-256 in lower-case digits, and what it says of itself."""

    path: Path
    sha256: str
    described: Described


@dataclass(frozen=True)
class RefusedFile:
    """A file that cannot be taken, and why."""

    path: Path
    why: str


@dataclass
class FoundModel:
    """Files of one base name: variants of one model. The fields of the first one count.

    `passed_over` says why a description beside it was not read.
    """

    name: str
    sidecar: Sidecar
    preview: Path | None
    passed_over: str | None = None
    files: list[FoundFile] = field(default_factory=list)

    @property
    def type(self) -> ModelType:
        """What the model is."""
        return self.sidecar.type or self.files[0].described.type

    @property
    def base_model(self) -> str:
        """The catalogue name of the base model that it is made for."""
        return self.sidecar.base or self.files[0].described.base_model

    @property
    def model_fields(self) -> dict[str, object]:
        """The model, as the API takes a new one."""
        about, first = self.sidecar.model, self.files[0].described
        flags = {"nsfw": about.nsfw, "poi": about.poi}
        return {
            "name": self.name,
            "type": self.type,
            "description": about.description or "",
            "tags": list(plain_tags(list(about.tags or ())) or first.tags),
            **{key: True for key, value in flags.items() if value},
        }

    @property
    def version_fields(self) -> dict[str, object]:
        """Its version, as the API takes a new one."""
        first = self.files[0].described
        counts = {"steps": first.steps, "epochs": first.epochs, "clipSkip": first.clip_skip}
        return {
            "name": (self.sidecar.name or "v1")[:MAX_NAME],
            "baseModel": self.base_model[:64],
            "description": (self.sidecar.description or first.description)[:15_000],
            "trainedWords": list(self.sidecar.words or first.trained_words),
            **{key: value for key, value in counts.items() if value is not None},
        }


def find_models(folder: Path) -> Iterator[FoundModel | RefusedFile]:
    """The models in a folder and then those in its folders, by name, and what cannot be taken.

    Only headers are read here, and each sound file once for its hash.
    """
    models: dict[tuple[Path, str], FoundModel] = {}
    for path in _model_files(folder):
        try:
            refuse_other_name(path.name)
            described = describe(check_weights(path))
            found = FoundFile(path, hash_file(path), described)
        except WeightsRefused as refusal:
            yield RefusedFile(path, str(refusal))
            continue
        except OSError as error:
            yield RefusedFile(path, f"it cannot be read: {error.strerror}.")
            continue
        # Also by type and base: files of one name in a folder need not be variants of one model.
        key = (path.parent, f"{_base_name(path.stem).lower()}\0{described.type}\0{described.base_model}")
        if key not in models:
            models[key] = _model(path, described)
        models[key].files.append(found)
    # Only now: a model's base is its first file's, or its description's.
    for model in models.values():
        yield from _checked(model)


def _checked(model: FoundModel) -> Iterator[FoundModel | RefusedFile]:
    """The model with those of its files that its family has; those that it has not."""
    family, sound = BASE_MODELS.get(model.base_model, "other"), list[FoundFile]()
    for file in model.files:
        try:
            check_model_file(file.path, family, model.type, FileType.MODEL)
        except WeightsRefused as refusal:
            yield RefusedFile(file.path, str(refusal))
        else:
            sound.append(file)
    model.files[:] = sound
    if sound:
        yield model


def _model_files(folder: Path) -> Iterator[Path]:
    """Files that look like weights; hidden ones and what lies in hidden folders are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in _MODEL_SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _model(path: Path, described: Described) -> FoundModel:
    sidecar, why = sidecar_of(path)
    name = sidecar.model.name or described.title or _base_name(path.stem)
    plain = " ".join(name.split())[:MAX_NAME] or path.stem[:MAX_NAME]
    return FoundModel(plain, sidecar, preview_of(path), why)


def _base_name(stem: str) -> str:
    """A file's name without what distinguishes variants."""
    while (shorter := _VARIANT.sub("", stem)) and shorter != stem:
        stem = shorter
    return stem
