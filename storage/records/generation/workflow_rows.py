"""Rows of workflows: what is kept of one beside its job, and where its steps stand."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class StepState(StrEnum):
    """Where a step stands. The last three never change."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation job has besides its row. `price` in credits, if everything is drawn; `charged` for what was,
    known when it has ended. `metadata` is the caller's own. `not_before`: what could draw it did not respond, and is
    asked again then. `deleted_at`: its owner does not want to see it any more.
    """

    job_id: UUID
    account_id: UUID
    external_id: str | None
    lane: int
    tags: list[str]
    metadata: dict[str, object]
    price: int
    charged: int | None
    units: float
    not_before: datetime | None
    deleted_at: datetime | None


class FailedTries(msgspec.Struct, frozen=True, kw_only=True):
    """How often in a row what could draw a workflow has failed since its last picture, for how long, and how many of
    these tries had begun a step."""

    failures: int = 0
    begun: int = 0
    seconds: float = 0.0


class WorkflowStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a workflow. `backend` draws it, or drew it; `tries` counts how often it was given to one. `seconds` is
    what the device worked for its pictures, as far as the backend says.
    """

    job_id: UUID
    position: int
    name: str
    operation: str
    family: str
    state: StepState
    pictures: int
    picture_price: int
    picture_units: float
    backend: str | None
    tries: int
    seconds: float
    started_at: datetime | None
    ended_at: datetime | None
    failure_code: str | None
    failure_reason: str | None
    metadata: dict[str, object]


class DrawingPace(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a unit of work took lately, by family, at a backend."""

    family: str
    backend: str
    seconds_per_unit: float
