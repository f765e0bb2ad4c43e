"""Workflows of generations: their rows beside those of their jobs, and the states of their steps.

Every write of a flow says which attempt it belongs to. A workflow ends with its job: a trigger ends its steps and
charges for what was drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import IdempotencyKeyReused, JobLost
from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.postgres.jobs import jobs
from storage.postgres.locks import lock_number
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow
from storage.records.generation.workflow_rows import DrawingPace, FailedTries, Workflow, WorkflowStep
from storage.records.jobs.jobs import Job, JobState

SQL = load_statements(__file__)


class DueWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that can be drawn: its job and the attempt."""

    id: UUID
    attempt: int


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """What goes before a workflow: how many workflows, and the work in them."""

    workflows: int
    units: float


class LaneQueue(msgspec.Struct, frozen=True, kw_only=True):
    """Workflows of a lane that wait, and that are drawn now."""

    lane: int
    waiting: int
    drawing: int


class Annotations(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller writes on a workflow and its steps, of which nothing is drawn."""

    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    step_metadata: tuple[dict[str, Any], ...] = ()


class NewWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow has beside its steps. `request_hash`: of the whole request."""

    request_hash: str
    external_id: str | None = None
    annotations: Annotations = Annotations()


def add(job: Job, resolved: ResolvedWorkflow, new: NewWorkflow) -> Script[Workflow]:
    """The rows of a job that was just submitted."""
    row = yield from one(
        SQL["insert"],
        {
            "job_id": job.id,
            "account_id": job.account_id,
            "external_id": new.external_id,
            "request_hash": new.request_hash,
            "lane": resolved.priority.lane,
            "tags": list(dict.fromkeys(new.annotations.tags)),
            "metadata": Jsonb(new.annotations.metadata),
            "price": resolved.price,
            "units": resolved.units,
            "versions": list(resolved.versions),
        },
        Workflow,
        "the new workflow",
    )
    steps = [
        {
            "position": position,
            "name": step.name,
            "operation": step.drawing.operation,
            "family": step.drawing.model.family,
            "pictures": step.pictures,
            "picture_price": step.picture_price,
            "picture_units": step.picture_units,
            "metadata": dict(enumerate(new.annotations.step_metadata)).get(position, {}),
        }
        for position, step in enumerate(resolved.steps)
    ]
    yield from column(SQL["insert_steps"], {"job_id": job.id, "steps": Jsonb(steps)}, int)
    if resolved.sources:
        sources = {"job_id": job.id, "account_id": job.account_id, "hashes": list(resolved.sources)}
        yield from column(SQL["insert_sources"], sources, str)
    return row


def inherit(job: Job, resolved: ResolvedWorkflow, retry_of: UUID) -> Script[Workflow]:
    """A retry's rows: as those of the job that it retries, if that has any, when nothing had been drawn. Its externalId
    stays the old one's."""
    found = yield from of_jobs([retry_of])
    metadata = tuple(step.metadata for step in (yield from steps_of_jobs([retry_of])))
    again = [Annotations(tags=tuple(old.tags), metadata=old.metadata, step_metadata=metadata) for old in found]
    return (yield from add(job, resolved, NewWorkflow(request_hash="", annotations=(*again, Annotations())[0])))


def named(account_id: UUID, external_id: str, request_hash: str) -> Script[Job | None]:
    """The job that the account submitted under its own name of it. Raises IdempotencyKeyReused for another request."""
    parameters = {"account_id": account_id, "external_id": external_id}
    found = yield from Query(SQL["by_external_id"], parameters, lambda rows: rows[0] if rows else None)
    if found is None:
        return None
    if found["request_hash"] != request_hash:
        raise IdempotencyKeyReused(
            f"externalId '{external_id}' is that of another workflow. Give a new workflow a new one."
        )
    return (yield from jobs.get(found["job_id"]))


def of_jobs(job_ids: Sequence[UUID]) -> Query[list[Workflow]]:
    """The workflows of these jobs; generations of before there were workflows have none."""
    return many(SQL["get"], {"job_ids": list(job_ids)}, Workflow)


def steps_of_jobs(job_ids: Sequence[UUID]) -> Query[list[WorkflowStep]]:
    """Their steps, by job and in their order."""
    return many(SQL["steps"], {"job_ids": list(job_ids)}, WorkflowStep)


def drawn(job_id: UUID) -> Query[dict[str, int]]:
    """How many pictures of each step are stored; steps without any are left out."""
    return Query(SQL["drawn"], {"job_id": job_id}, lambda rows: {row["step"]: row["pictures"] for row in rows})


def wanted(flow: str) -> Script[int | None]:
    """The number of the run that should draw now; None when nothing is due or one holds the lock `flow`."""
    numbers = yield from column(SQL["wanted"], {"flow": flow, "lock": lock_number(flow)}, int)
    return numbers[0] if numbers else None


def next_due(passed: Sequence[UUID] = ()) -> Query[DueWorkflow | None]:
    """The workflow that goes next, but for those passed over; its row is held until the transaction ends."""
    return maybe(SQL["next"], {"passed": list(passed)}, DueWorkflow)


def over_share(job_ids: Sequence[UUID], share: int) -> Script[UUID | None]:
    """Of these that are drawn the one that gives way, if one has to: its account has more than `share` of them, and one
    of an account that has less could be drawn."""
    found = yield from column(SQL["over_share"], {"job_ids": list(job_ids), "share": share}, UUID)
    return found[0] if found else None


def due_in() -> Script[float | None]:
    """Seconds until the next is due of the workflows that were postponed; None when none waits for that."""
    found = yield from column(SQL["due_in"], {}, float)
    return found[0] if found else None


def failed_tries(job_id: UUID) -> Query[FailedTries]:
    """What failed since its last picture was kept."""
    return one(SQL["failing"], {"job_id": job_id}, FailedTries, f"Job {job_id} is no workflow.")


def postpone(job_id: UUID, attempt: int, pause: float, tries: FailedTries) -> Script[Job]:
    """Submit a running workflow again, not to be drawn for `pause` seconds, since what could draw it does not respond.
    One that is being cancelled ends cancelled. Raises JobLost."""
    job = yield from jobs.release(job_id, attempt)
    if job.state is JobState.SUBMITTED:
        parameters = {"job_id": job_id, "pause": pause, **msgspec.to_builtins(tries)}
        yield from column(SQL["postpone"], parameters, UUID)
    return job


def settle(job_id: UUID) -> Query[list[UUID]]:
    """A picture was kept after tries that failed: they count no more."""
    return column(SQL["settle"], {"job_id": job_id}, UUID)


def cancelling(job_ids: Sequence[UUID]) -> Query[list[UUID]]:
    """Of these jobs those that their owners have asked to stop."""
    return column(SQL["cancelling"], {"job_ids": list(job_ids)}, UUID)


def ahead(job: Job, lane: int) -> Query[Ahead]:
    """What goes before a submitted workflow."""
    return one(SQL["ahead"], {"lane": lane, "sequence": job.sequence}, Ahead, "the queue")


def queue() -> Query[list[LaneQueue]]:
    """What waits and what is drawn, by lane; lanes without any are left out."""
    return many(SQL["queue"], {}, LaneQueue)


def begin_step(job_id: UUID, attempt: int, position: int, backend: str | None) -> Script[WorkflowStep]:
    """A step is given to a backend; None leaves the one that had it. Raises JobLost."""
    parameters = {"job_id": job_id, "attempt": attempt, "position": position, "backend": backend}
    return _held((yield from maybe(SQL["begin_step"], parameters, WorkflowStep)), job_id, attempt)


def drew(job_id: UUID, attempt: int, position: int, seconds: float) -> Script[None]:
    """A picture of a step is stored, for which the device worked so long. Raises JobLost."""
    parameters = {"job_id": job_id, "attempt": attempt, "position": position, "seconds": seconds}
    if not (yield from column(SQL["drew"], parameters, int)):
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; nothing was written.")


def end_step(job_id: UUID, attempt: int, position: int) -> Script[WorkflowStep]:
    """A step has all of its pictures. Raises JobLost."""
    parameters = {"job_id": job_id, "attempt": attempt, "position": position}
    return _held((yield from maybe(SQL["end_step"], parameters, WorkflowStep)), job_id, attempt)


def _held(row: WorkflowStep | None, job_id: UUID, attempt: int) -> WorkflowStep:
    if row is None:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s. This process must stop; nothing was written.")
    return row


def paces() -> Query[list[DrawingPace]]:
    """Seconds that a unit of work took lately."""
    return many(SQL["paces"], {}, DrawingPace)


def list_for_account(
    account_id: UUID,
    *,
    before: int | None = None,
    state: JobState | None = None,
    tags: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    without_failed: bool = False,
    limit: int = 50,
) -> Query[list[Job]]:
    """A page of an account's generations, newest first, that have all of these tags. Their `request` is left empty."""
    parameters = {
        "account_id": account_id,
        "before": before,
        "state": state,
        "tags": list(tags) or None,
        "since": since,
        "until": until,
        "without_failed": without_failed,
        "limit": limit,
    }
    return many(SQL["list"], parameters, Job)


def change(
    job_id: UUID, account_id: UUID, *, tags: Sequence[str] | None = None, metadata: dict[str, Any] | None = None
) -> Query[Workflow | None]:
    """Other tags or metadata of an account's own workflow; None when it has none of that id."""
    parameters = {
        "job_id": job_id,
        "account_id": account_id,
        "tags": None if tags is None else list(dict.fromkeys(tags)),
        "metadata": None if metadata is None else Jsonb(metadata),
    }
    return maybe(SQL["change"], parameters, Workflow)


def change_step(job_id: UUID, name: str, metadata: dict[str, Any]) -> Query[WorkflowStep | None]:
    """Other metadata of a step."""
    return maybe(SQL["change_step"], {"job_id": job_id, "name": name, "metadata": Jsonb(metadata)}, WorkflowStep)


def delete(job_id: UUID, account_id: UUID) -> Query[list[UUID]]:
    """Take an account's own workflow out of its lists; returns its job if there is one."""
    return column(SQL["delete"], {"job_id": job_id, "account_id": account_id}, UUID)


def adopt_pictures(job_id: UUID, step: ResolvedStep) -> Query[list[str]]:
    """Make the pictures of a generation of before there were workflows those of its only step; returns their names."""
    drawing = step.drawing
    parameters = {"job_id": job_id, "step": step.name, "width": drawing.width, "height": drawing.height}
    return column(SQL["adopt_pictures"], parameters, str)


def untracked(passed: Collection[UUID] = (), limit: int = 20) -> Query[list[Job]]:
    """Workflows that ended without a run in MLflow, but those that are passed over, the oldest first."""
    return many(SQL["untracked"], {"passed": list(passed), "limit": limit}, Job)
