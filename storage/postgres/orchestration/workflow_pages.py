"""Workflows as clients of Civitai's orchestration look for them, and pictures by their blobs' ids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from storage.errors import NotFound
from storage.postgres.connection import Query, Rows, Script, as_record, load_statements, many, maybe
from storage.postgres.generation import workflows
from storage.postgres.generation.source_pictures import SentPicture
from storage.records.generation.workflow_rows import Workflow, WorkflowStep
from storage.records.jobs.jobs import Job, JobFile, JobState
from storage.records.orchestration.rendering import UNKNOWN, Standing, queue_position
from storage.records.policy.facts import Facts, own_facts
from storage.request_faults import has_control_characters

Row = TypeVar("Row")
_STATEMENTS = {**load_statements(__file__)}
_PAGE = _STATEMENTS.pop("page")
SQL = {
    **_STATEMENTS,
    "newest_first": _PAGE.replace("{beyond}", "<").replace("{order}", "desc"),
    "oldest_first": _PAGE.replace("{beyond}", ">").replace("{order}", "asc"),
}


def page(
    account_id: UUID,
    *,
    beyond: int | None = None,
    ascending: bool = False,
    tags: Sequence[str] = (),
    words: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    without_failed: bool = False,
    limit: int,
) -> Query[list[Job]]:
    """A page of an account's workflows, behind the one of the sequence number `beyond`; `since` and `until` are within
    it."""
    parameters = {
        "account_id": account_id,
        "beyond": beyond,
        "tags": list(tags) or None,
        "words": words,
        "since": since,
        "until": until,
        "without_failed": without_failed,
        "limit": limit,
    }
    return many(SQL["oldest_first" if ascending else "newest_first"], parameters, Job)


def find(job_id: UUID, account_id: UUID) -> Script[Job]:
    """An account's workflow. Raises NotFound for one that there is not, that is another's or that was deleted."""
    job = yield from maybe(SQL["find"], {"job_id": job_id, "account_id": account_id}, Job)
    return _there(job, job_id)


def is_named(account_id: UUID, external_id: str) -> Query[bool]:
    """Whether the account has submitted a workflow under this name of its own."""
    parameters = {"account_id": account_id, "external_id": external_id}
    return Query(SQL["is_named"], parameters, bool)


def hold(job_id: UUID, account_id: UUID) -> Script[Workflow]:
    """A workflow's row, until the transaction ends. Raises as `find`."""
    parameters = {"job_id": job_id, "account_id": account_id}
    yield from Query(SQL["hold_job"], parameters, len)
    return _there((yield from maybe(SQL["hold"], parameters, Workflow)), job_id)


def hold_step(job_id: UUID, account_id: UUID, name: str) -> Script[WorkflowStep]:
    """A step's row, until the transaction ends. Raises NotFound."""
    parameters = {"job_id": job_id, "account_id": account_id, "name": name}
    # Postgres takes no NUL, and no step has one in its name.
    step = None if has_control_characters(name) else (yield from maybe(SQL["hold_step"], parameters, WorkflowStep))
    if step is None:
        raise NotFound(f"Workflow {job_id} has no step {name[:64]!a}.")
    return step


def standings(jobs: Sequence[Job]) -> Script[list[Standing]]:
    """Everything that is known of workflows but their places in the queue, in the same order."""
    ids = [job.id for job in jobs]
    rows = {row.job_id: row for row in (yield from workflows.of_jobs(ids))}
    steps = yield from workflows.steps_of_jobs(ids)
    files = yield from many(SQL["pictures"], {"job_ids": ids}, JobFile)
    return [
        Standing(
            job=job,
            workflow=rows[job.id],
            steps=tuple(step for step in steps if step.job_id == job.id),
            files=tuple(file for file in files if file.job_id == job.id),
            queue=UNKNOWN,
        )
        for job in jobs
    ]


def standing(job: Job, now: datetime) -> Script[Standing]:
    """Everything that is known of one workflow; of a submitted one also its place in the queue."""
    [found] = yield from standings([job])
    if job.state is not JobState.SUBMITTED:
        return found
    row = found.workflow
    before = yield from workflows.ahead(job, row.lane)
    paces = [pace.seconds_per_unit for pace in (yield from workflows.paces())]
    # The slowest of what draws lately: an estimate that is kept.
    pace = max(paces, default=None)
    queue = queue_position(
        before.workflows,
        None if pace is None else before.units * pace,
        None if pace is None else row.units * pace,
        now,
    )
    return Standing(job=job, workflow=row, steps=found.steps, files=found.files, queue=queue)


def picture(job_id: UUID, account_id: UUID, name: str) -> Script[JobFile]:
    """A picture of an account's workflow, by the name of its file. Raises NotFound."""
    parameters = {"job_id": job_id, "account_id": account_id, "name": name}
    found = yield from maybe(SQL["picture"], parameters, JobFile)
    if found is None:
        raise NotFound(f"No blob '{job_id}-{name}'.")
    return found


def sent(account_id: UUID, sha256: str) -> Query[tuple[Facts, SentPicture]]:
    """A picture that an account sent, and what decides about it. Reading raises NotFound."""

    def read(rows: Rows) -> tuple[Facts, SentPicture]:
        if not rows:
            raise NotFound(f"No blob '{sha256}'.")
        facts = own_facts(account_id, owner_active=rows[0]["owner_active"])
        return facts, as_record(SentPicture, rows[0])

    return Query(SQL["sent"], {"account_id": account_id, "sha256": sha256}, read)


def _there(row: Row | None, job_id: UUID) -> Row:
    if row is None:
        raise NotFound(f"No workflow {job_id}.")
    return row
