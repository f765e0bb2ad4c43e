"""A training job's checkpoints as clients see them: which steps there are to choose from, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from storage.records.jobs.jobs import Checkpoint, Job, JobState
from storage.records.jobs.training import TrainingJobRequest
from storage.settings import Settings


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a training after `step` optimizer steps."""

    step: Annotated[int, Meta(examples=[400], description="What a retry names as its `step`.")]
    size: Annotated[int, Meta(description="Bytes; they count for the account.")]
    created_at: datetime
    kept_until: Annotated[
        datetime | None,
        Meta(description="When it is deleted, at the next run of retention; null while the job has not ended."),
    ]


class CheckpointList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job's checkpoints, newest first."""

    items: list[CheckpointView]


def checkpoint_list(job: Job, found: Sequence[Checkpoint], settings: Settings) -> CheckpointList:
    """The checkpoints of a job, newest first, as `found` has them."""
    every = msgspec.convert(job.request, TrainingJobRequest).recipe.keep_every
    newest = max((row.step for row in found), default=0)
    days = timedelta(days=settings.retention.checkpoint_days)

    def until(row: Checkpoint) -> datetime | None:
        if job.ended_at is None:
            return None
        # As retention does it (storage/postgres/upkeep/retention.sql): of a job that did not succeed the newest stays,
        # and those that `keepEvery` asked for.
        stays = job.state is JobState.SUCCEEDED or row.step == newest or (every > 0 and row.step % every == 0)
        return job.ended_at + days if stays else job.ended_at

    items = [
        CheckpointView(step=row.step, size=row.size, created_at=row.created_at, kept_until=until(row)) for row in found
    ]
    return CheckpointList(items=items)
