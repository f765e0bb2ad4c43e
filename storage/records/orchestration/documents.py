"""A workflow, its steps and their pictures as clients of Civitai's orchestration read them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from storage.records.generation.prices import Priority
from storage.records.orchestration.statuses import WorkflowStatus


class Tips(msgspec.Struct, frozen=True, kw_only=True):
    """What is given beyond the price: nothing here."""

    civitai: float = 0
    creators: float = 0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Credits. `total` is the price of everything, and of what was drawn once the workflow has ended."""

    base: int
    factors: dict[str, float]
    fixed: dict[str, float]
    fees: dict[str, float]
    total: int
    tips: Tips = Tips()


class Transactions(msgspec.Struct, frozen=True, kw_only=True):
    """Debits and credits: none yet, since no ledger is kept."""

    list: tuple[Any, ...] = ()


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What goes before, and an estimate of when it begins and ends."""

    support: Annotated[str, Meta(examples=["available"])]
    preceding_jobs: int | None = None
    start_at: datetime | None = None
    complete_at: datetime | None = None


class StepJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backend is given of a step: the step itself, whole. `cost` in credits."""

    id: str
    status: WorkflowStatus
    started_at: datetime | None
    completed_at: datetime | None
    queue_position: QueuePosition
    cost: int
    estimated_progress_rate: Annotated[float, Meta(ge=0, le=1)] | None


class ImageBlob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A picture; `url` needs no key until `urlExpiresAt`. Nobody has rated it: `nsfwLevel` is `na`."""

    id: str
    available: bool
    width: int | None
    height: int | None
    url: str | None = None
    url_expires_at: datetime | None = None
    job_id: str | None = None
    type: str = "image"
    nsfw_level: str = "na"


class StepDocument(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "kind": "$type",
        "started_at": "startedAt",
        "completed_at": "completedAt",
        "estimated_progress_rate": "estimatedProgressRate",
    },
):
    """A step with its input, its job and what it has made."""

    kind: Annotated[str, Meta(examples=["textToImage"])]
    name: str
    priority: Priority
    status: WorkflowStatus
    started_at: datetime | None
    completed_at: datetime | None
    metadata: dict[str, Any]
    input: dict[str, Any]
    output: dict[str, Any]
    jobs: tuple[StepJob, ...]
    estimated_progress_rate: float | None
    timeout: None = None
    retries: None = None


class WorkflowDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A workflow. `id` is null of one that was only priced."""

    id: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    status: WorkflowStatus
    metadata: dict[str, Any]
    tags: list[str]
    steps: tuple[StepDocument, ...]
    cost: Cost
    external_id: str | None
    transactions: Transactions = Transactions()
    arguments: dict[str, Any] = {}
    callbacks: tuple[Any, ...] = ()
    tips: Tips = Tips()
    currencies: tuple[str, ...] = ()
    upgrade_mode: str = "manual"
    nsfw_level: str = "na"
    force_refunded: bool = False


class WorkflowPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some workflows; `next` is the cursor of those behind them, null at the end."""

    next: str | None
    items: tuple[WorkflowDocument, ...]
