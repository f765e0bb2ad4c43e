"""The catalogue: models, their versions, the files and images of a version."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from storage.records.catalog.vocabulary import (
    Availability,
    BaseModelType,
    CheckpointType,
    CommercialUse,
    FileType,
    ModelMode,
    ModelType,
    Status,
    UploadType,
)


class FileRole(StrEnum):
    """What a version's file is: one file that holds all weights, or a member of the diffusers folder."""

    WEIGHTS = "weights"
    FOLDER = "folder"


class Checked(StrEnum):
    """What is known of a file's tensors: that they are sound and plain, or also that they are its model family's."""

    STRUCTURE = "structure"
    FAMILY = "family"


class FileHashes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hashes that tools know a weights file by, upper-case hex where they come from a row.

    AutoV1: the first 8 digits of the SHA-256 of bytes 0x100000 to 0x10FFFF. AutoV2: the first 10 of SHA256.
    AutoV3: the first 12 of the SHA-256 of everything after the safetensors header. CRC32 has 8, BLAKE3 64.
    """

    auto_v1: str | None = msgspec.field(name="AutoV1", default=None)
    auto_v2: str | None = msgspec.field(name="AutoV2", default=None)
    auto_v3: str | None = msgspec.field(name="AutoV3", default=None)
    sha256: str | None = msgspec.field(name="SHA256", default=None)
    crc32: str | None = msgspec.field(name="CRC32", default=None)
    blake3: str | None = msgspec.field(name="BLAKE3", default=None)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to publish; its bytes are stored. SHA256 and AutoV2 are added to `hashes` from `sha256`."""

    path: str
    role: FileRole
    sha256: str
    size: int
    hashes: FileHashes = FileHashes()
    type: FileType = FileType.MODEL
    format: str = "SafeTensor"
    size_kind: str | None = None
    fp: str | None = None
    quant_type: str | None = None
    checked: Checked | None = None


class NewImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image to show with a version; its bytes are stored. `meta` is how it was made, in Civitai's names."""

    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    blurhash: str
    nsfw_level: int = 1
    meta: dict[str, object] | None = None


class TrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a training job publishes."""

    model_name: str
    base_model: str
    trained_words: tuple[str, ...]
    recipe: dict[str, object]
    evaluation: dict[str, object] | None
    files: tuple[NewFile, ...]
    images: tuple[NewImage, ...] = ()
    availability: Availability = Availability.PUBLIC
    steps: int | None = None
    type: ModelType = ModelType.CHECKPOINT


class ModelFields(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner says of a model. Tags are lower-case, without blanks at their ends."""

    name: str
    type: ModelType
    description: str = ""
    availability: Availability = Availability.PUBLIC
    checkpoint_type: CheckpointType | None = None
    upload_type: UploadType = UploadType.CREATED
    nsfw: bool = False
    poi: bool = False
    minor: bool = False
    sfw_only: bool = False
    allow_no_credit: bool = True
    allow_commercial_use: tuple[CommercialUse, ...] = (CommercialUse.SELL,)
    allow_derivatives: bool = True
    allow_different_license: bool = True
    tags: tuple[str, ...] = ()


class VersionFields(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner says of a version. `base_model` is its base's catalogue name, which clients filter by."""

    name: str
    base_model: str
    description: str = ""
    availability: Availability = Availability.PUBLIC
    base_model_type: BaseModelType = BaseModelType.STANDARD
    trained_words: tuple[str, ...] = ()
    steps: int | None = None
    epochs: int | None = None
    clip_skip: int | None = None


class VersionFile(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `version_files`, with its hashes."""

    id: int
    version_id: int
    path: str
    role: FileRole
    sha256: str
    size: int
    hashes: FileHashes
    type: FileType
    format: str
    size_kind: str | None
    fp: str | None
    quant_type: str | None
    checked: Checked | None
    visibility: str
    override_name: str | None
    created_at: datetime


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `model_versions`. Those of a training job have `job_id`, `recipe` and `evaluation`. `published_at`: when
    others could first see it; None for what was always private."""

    id: int
    model_id: int
    position: int
    name: str
    description: str
    status: Status
    availability: Availability
    base_model: str
    base_model_type: BaseModelType
    trained_words: tuple[str, ...]
    steps: int | None
    epochs: int | None
    clip_skip: int | None
    upload_type: UploadType
    usage_control: str
    require_auth: bool
    nsfw_level: int
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None
    scheduled_for: datetime | None
    gone_at: datetime | None
    gone_reason: str | None
    job_id: UUID | None
    recipe: dict[str, object] | None
    evaluation: dict[str, object] | None
    registered_as: str | None

    @property
    def waits_for_its_owner(self) -> bool:
        """Whether it is a fine-tune that was never published for others."""
        private = self.availability is Availability.PRIVATE
        return private and self.job_id is not None and self.published_at is None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `models`.

    `owner_active`: its owner is not banned. `visible`: anybody may read it by its id; `listed`: it also stands in
    lists. `public_versions`: the ids of the versions that anybody sees, newest first. `revision` grows with every
    change and survives deletion.
    """

    id: int
    account_id: UUID
    name: str
    description: str
    type: ModelType
    status: Status
    availability: Availability
    mode: ModelMode | None
    checkpoint_type: CheckpointType | None
    upload_type: UploadType
    nsfw: bool
    poi: bool
    minor: bool
    sfw_only: bool
    allow_no_credit: bool
    allow_commercial_use: tuple[CommercialUse, ...]
    allow_derivatives: bool
    allow_different_license: bool
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None
    scheduled_for: datetime | None
    gone_at: datetime | None
    gone_reason: str | None
    owner_active: bool
    visible: bool
    listed: bool
    public_versions: tuple[int, ...]
    base_models: tuple[str, ...]
    nsfw_level: int
    last_version_at: datetime | None
    revision: int


class ModelRevision(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model's row says whether a page may show it, and as what. `epoch` changes when a backup is restored."""

    id: int
    revision: int
    epoch: str
    nsfw_level: int


class ModelStats(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `model_stats`, all 0 when there is none."""

    model_id: int = 0
    download_count: int = 0
    thumbs_up_count: int = 0
    thumbs_down_count: int = 0
    comment_count: int = 0
    collected_count: int = 0
    image_count: int = 0
    tipped_amount_count: int = 0
    generation_count: int = 0


class VersionStats(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `version_stats`, all 0 when there is none."""

    version_id: int = 0
    download_count: int = 0
    thumbs_up_count: int = 0
    thumbs_down_count: int = 0
    generation_count: int = 0


class CatalogImage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `images`."""

    id: int
    version_id: int
    account_id: UUID
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    blurhash: str
    nsfw_level: int
    meta: dict[str, object] | None
    created_at: datetime
    gone_at: datetime | None


class ShownImage(CatalogImage, frozen=True, kw_only=True):
    """An image with what a list says of it."""

    username: str
    base_model: str
    model_id: int
    cry_count: int
    laugh_count: int
    like_count: int
    dislike_count: int
    heart_count: int
    comment_count: int
