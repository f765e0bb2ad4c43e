"""The catalogue: models, their versions, and the files of a version."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class FileRole(StrEnum):
    """What a version's file is: one file that holds all weights, or a member of the diffusers folder."""

    WEIGHTS = "weights"
    FOLDER = "folder"


class FileHashes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hashes other tools know a weights file by. AutoV2 is the first 10 hex digits of SHA-256; AutoV3 the first 12
    of the SHA-256 of everything after the safetensors header."""

    auto_v1: str | None = None
    auto_v2: str | None = None
    auto_v3: str | None = None


class VersionFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model version."""

    path: str
    role: FileRole
    sha256: str
    size: int
    hashes: FileHashes = FileHashes()


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a training job publishes."""

    model_name: str
    base_model: str
    trained_words: tuple[str, ...]
    recipe: dict[str, object]
    evaluation: dict[str, object] | None
    files: tuple[VersionFile, ...]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `models`."""

    id: int
    account_id: UUID
    name: str
    type: str
    created_at: datetime


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `model_versions`."""

    id: int
    model_id: int
    position: int
    name: str
    job_id: UUID
    base_model: str
    trained_words: tuple[str, ...]
    recipe: dict[str, object]
    evaluation: dict[str, object] | None
    published_at: datetime
    registered_as: str | None
