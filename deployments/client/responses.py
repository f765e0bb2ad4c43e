"""Responses of the API, as far as the command line reads it. Fields it does not know are passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

T = TypeVar("T")

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class ProblemResponse(msgspec.Struct, frozen=True, rename="camel"):
    """An error body."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: dict[str, str] = {}
    request_id: str = ""


class Made(msgspec.Struct, frozen=True):
    """Something that was made, by its number."""

    id: int


class HashOwnerResponse(msgspec.Struct, frozen=True, rename="camel"):
    """The model that a hash names."""

    model_id: int
    hash: str


class PageEnd(msgspec.Struct, frozen=True, rename="camel"):
    """Whether there is more behind a page."""

    next_page: str | None = None


class Listing(msgspec.Struct, Generic[T], frozen=True):
    """Some of many items, newest first."""

    items: list[T]
    metadata: PageEnd = PageEnd()


class TrainingDefaultsResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What a training request takes for each field that it leaves out."""

    steps: int
    identifier: str


class Base(msgspec.Struct, frozen=True, rename="camel"):
    """A base model."""

    name: str
    family: str
    resolution: int
    training: TrainingDefaultsResponse
    class_words: tuple[str, ...] = ()


class SavingResponse(msgspec.Struct, frozen=True, rename="camel"):
    """A change of a request, and the bytes of memory that it saves."""

    change: str
    saved_bytes: int


class MemoryResponse(msgspec.Struct, frozen=True, rename="camel"):
    """Bytes of memory at the peak of a training's steps."""

    peak_bytes: int
    margin: float
    fits_cards: tuple[str, ...]
    savings: tuple[SavingResponse, ...]
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    ema: int
    half_precision_copies: int
    encodings: int
    activations: int
    not_concurrent: int
    drawing: int
    trained_parameters: int
    total_parameters: int


class DiskResponse(msgspec.Struct, frozen=True, rename="camel"):
    """Bytes that a training writes."""

    peak_bytes: int
    checkpoint: int
    checkpoints: int
    export: int


class TimeResponse(msgspec.Struct, frozen=True, rename="camel"):
    """How fast earlier trainings were on a device."""

    device: str
    jobs: int
    seconds_per_step: float
    other_seconds: float
    seconds: float


class TrainingEstimateResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What a training request means, and what it needs."""

    request: dict[str, Any]
    family: str
    memory: MemoryResponse | None
    disk: DiskResponse | None
    times: tuple[TimeResponse, ...]
    notes: tuple[str, ...]


class DataSetResponse(msgspec.Struct, frozen=True, rename="camel"):
    """Uploaded photos."""

    id: UUID
    image_count: int
    left_out: list[str] = []


class ProgressResponse(msgspec.Struct, frozen=True):
    """How far a job is: `step` of `total` in a named phase."""

    phase: str
    step: int = 0
    total: int = 0
    loss: float | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str
    reason: str


class Submitted(msgspec.Struct, frozen=True):
    """A job that was just asked for."""

    id: UUID
    kind: str


class SourceResponse(msgspec.Struct, frozen=True):
    """A picture to go on from."""

    sha256: str
    width: int
    height: int


class StepPriceResponse(msgspec.Struct, frozen=True):
    """What a step of a generation costs and draws."""

    name: str
    credits: int
    pictures: int
    width: int
    height: int
    seconds: float | None = None
    scheduler: str | None = None
    steps: int | None = None


class PriceResponse(msgspec.Struct, frozen=True):
    """What a generation costs."""

    credits: int
    pictures: int
    steps: tuple[StepPriceResponse, ...]
    seconds: float | None = None


class JobResponse(msgspec.Struct, frozen=True, rename="camel"):
    """A job. What is only in its detail has a default."""

    id: UUID
    kind: str
    state: str
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: ProgressResponse | None = None
    failure: Failure | None = None
    retry_of: UUID | None = None
    model_version_id: int | None = None
    queue_position: int | None = None
    estimated_seconds: float | None = None
    tracking_run_url: str | None = None
    flow_run_url: str | None = None
    request: dict[str, Any] = {}

    @property
    def path(self) -> str:
        """Where it is below the API's root."""
        return f"{job_root(self.kind)}/{self.id}"


class CheckpointResponse(msgspec.Struct, frozen=True, rename="camel"):
    """The state of a training after some steps."""

    step: int
    size: int
    created_at: datetime
    kept_until: datetime | None = None


class JobFileResponse(msgspec.Struct, frozen=True, rename="camel"):
    """Something a job made."""

    name: str
    role: str
    size: int
    sha256: str
    url: str
    details: dict[str, Any] = {}


class StoredFile(msgspec.Struct, frozen=True):
    """One file of a model version: its weights, or a member of its diffusers folder."""

    path: str
    role: str
    size: int
    sha256: str
    url: str


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """A model version."""

    id: int
    model_id: int
    name: str
    base_model: str
    trained_words: tuple[str, ...]
    stored_files: tuple[StoredFile, ...]
    availability: str = "Public"
    evaluation: dict[str, Any] | None = None


class VersionState(msgspec.Struct, frozen=True):
    """A version as its model lists it: whether it is published, and for whom."""

    id: int
    name: str
    status: str
    availability: str

    @property
    def is_public(self) -> bool:
        """Whether everybody sees it once everybody sees its model."""
        return (self.status, self.availability != "Private") == ("Published", True)


class ModelResponse(msgspec.Struct, frozen=True, rename="camel"):
    """A catalogue entry."""

    id: int
    name: str
    status: str
    availability: str
    model_versions: tuple[VersionState, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether everybody sees it."""
        return (self.status, self.availability != "Private") == ("Published", True)

    @property
    def public_versions(self) -> tuple[VersionState, ...]:
        """The versions that everybody sees."""
        return tuple(one for one in self.model_versions if one.is_public) if self.is_public else ()


def job_root(kind: str) -> str:
    """The address of all jobs of a kind."""
    return "/api/v1/generations" if kind == "generation" else "/api/v1/training-jobs"
