"""A job: someone asked for work. Its states, who may move it where, and its row as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class JobKind(StrEnum):
    """What a job makes."""

    TRAINING = "training"
    GENERATION = "generation"


class JobState(StrEnum):
    """Where a job stands. The last three never change."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Actor(StrEnum):
    """Who moves a job."""

    API = "api"
    FLOW = "flow"
    RELAY = "relay"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: dict[tuple[JobState, JobState], frozenset[Actor]] = {
    (JobState.SUBMITTED, JobState.RUNNING): frozenset({Actor.FLOW}),
    (JobState.SUBMITTED, JobState.CANCELLED): frozenset({Actor.API}),
    (JobState.SUBMITTED, JobState.FAILED): frozenset({Actor.RELAY}),
    (JobState.RUNNING, JobState.SUCCEEDED): frozenset({Actor.FLOW}),
    (JobState.RUNNING, JobState.FAILED): frozenset({Actor.FLOW, Actor.RELAY}),
    (JobState.RUNNING, JobState.SUBMITTED): frozenset({Actor.RELAY, Actor.FLOW}),
    (JobState.RUNNING, JobState.CANCELLING): frozenset({Actor.API, Actor.FLOW}),
    (JobState.CANCELLING, JobState.CANCELLED): frozenset({Actor.FLOW, Actor.RELAY}),
}
"""Every move there is. A flow releases a job (running to submitted) when its process is asked to
stop, and cancels it when it was Prefect's cancel button that asked it."""


def may_move(old: JobState, new: JobState) -> bool:
    """Whether a job in state `old` may become `new`. The database's trigger says the same."""
    return (old, new) in TRANSITIONS


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running job is: `step` of `total` in a named phase."""

    phase: str
    step: int = 0
    total: int = 0
    loss: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `jobs`. `request` is the resolved recipe as plain JSON; see records/training.py and generation.py."""

    id: UUID
    account_id: UUID
    kind: JobKind
    state: JobState
    request: dict[str, object]
    attempt: int
    silent_attempts: int
    sequence: int
    progress: Progress | None
    flow_run_id: UUID | None
    tracking_run_id: str | None
    heartbeat_at: datetime | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    failure_code: str | None
    failure_reason: str | None
    retry_of: UUID | None
    model_version_id: int | None
    recipe_hash: str
    data_set_id: UUID | None
    request_id: str | None = None


class JobFileRole(StrEnum):
    """What a file of a job is."""

    SAMPLE = "sample"
    GRID = "grid"
    METRICS = "metrics"
    EVALUATION = "evaluation"
    WEIGHTS = "weights"
    IMAGE = "image"


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """Something a job made: bytes in the blob store under a name of the job's own."""

    job_id: UUID
    name: str
    role: JobFileRole
    sha256: str
    size: int
    media_type: str
    step: int | None
    details: dict[str, object]
    created_at: datetime


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Resumable training state of a job after `step` optimizer steps, in the blob store."""

    job_id: UUID
    step: int
    sha256: str
    size: int
    created_at: datetime


class Stage(StrEnum):
    """A stage of a training job, in the order in which they run."""

    PREPARE = "prepare"
    REGULARIZE = "regularize"
    FIT = "fit"
    EVALUATE = "evaluate"
    EXPORT = "export"
    PUBLISH = "publish"


class RepeatedStage(StrEnum):
    """A stage that can be asked for again alone."""

    FIT = "fit"
    EVALUATE = "evaluate"
    EXPORT = "export"

    @property
    def repeats(self) -> tuple[str, ...]:
        """The stages whose results are made again: this one, and those that are made from it."""
        return tuple(RepeatedStage) if self is RepeatedStage.FIT else (self.value,)


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage has made. `key` is over what it was made from; `result` names it: hashes, ids, figures.

    made_by: the job that made it, in which attempt; another one than `job_id` is a job that this one retries. seconds:
    of the attempt that ended it. peak_bytes: of the GPU, or of the process.
    """

    job_id: UUID
    stage: Stage
    key: str
    result: dict[str, object]
    made_by: UUID
    attempt: int
    seconds: float
    peak_bytes: int
    ended_at: datetime


class StageBlob(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a result names, in the blob store."""

    sha256: str
    size: int


# Raised when a stage would make something else of the same inputs: what was kept of before is then not used.
_VERSION = 1


def stage_key(stage: Stage, inputs: Mapping[str, object]) -> str:
    """SHA-256 of a stage's inputs, which are hashes and plain values."""
    content = msgspec.json.encode({"stage": stage, "version": _VERSION, "inputs": dict(inputs)}, order="sorted")
    return hashlib.sha256(content).hexdigest()
