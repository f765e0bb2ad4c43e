"""Which job a flow run works on: the one that it was started for, or a retry of it.

Prefect's Retry button runs a flow run again with the parameters that it had. The job has ended by then, and what has
ended never changes: so a failed or cancelled job is retried as by `darkroom jobs retry`, and this very flow run carries
the new job out. Where the job was retried before, here or elsewhere, its newest retry stands for it: that one is
retried, or waited for, or has done the work.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.runtime import flow_run
from prefect.states import Completed, State

from flows.jobs.lifecycle import RunningJob, held_job, running_job
from flows.runs.retries import run_with_retries
from flows.runs.run_logs import run_logger
from storage.errors import JobAlreadyRunning
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs, submissions
from storage.records.jobs.jobs import Job, JobState
from storage.records.jobs.machines import Machine
from storage.stores import Stores

ENDED_BADLY = frozenset({JobState.FAILED, JobState.CANCELLED})


def ended_well(stores: Stores, job_id: UUID) -> State[Any] | None:
    """How this flow run ends at once, since a job has succeeded in it, or the newest retry of its job has elsewhere:
    Prefect offers to run it again all the same."""
    if not _runs_again():
        return None
    if done := stores.database.run(jobs.succeeded_in(UUID(str(flow_run.id)))):
        return Completed(message=f"Job {done[-1].id} has succeeded in this flow run; nothing was done.")
    newest = stores.database.run(jobs.newest_retry(job_id))
    if newest.id != job_id and newest.state is JobState.SUCCEEDED:
        return Completed(message=f"Job {newest.id}, a retry of job {job_id}, has succeeded; nothing was done.")
    return None


@contextmanager
def claimed_job(stores: Stores, job_id: UUID, attempt: int, machine: Machine | None = None) -> Generator[RunningJob]:
    """As `running_job`; where Prefect runs a flow run again whose job has failed or was cancelled, a retry of that job.

    Raises what `running_job` and `submissions.retry` raise, JobAlreadyRunning while an earlier retry lives.
    """
    again = _runs_again()
    if again and stores.database.run(jobs.get(job_id)).state in ENDED_BADLY:
        with _retried(stores, job_id, again, machine) as job:
            yield job
        return
    with running_job(stores, job_id, attempt, machine) as job:
        yield job


def _runs_again() -> str:
    """What names this run of a flow run that Prefect runs again; empty for its first."""
    count = int(flow_run.run_count or 0)
    return f"prefect-retry:{flow_run.id}:{count}" if flow_run.id and count > 1 else ""


@contextmanager
def _retried(stores: Stores, job_id: UUID, key: str, machine: Machine | None) -> Generator[RunningJob]:
    identity = UUID(str(flow_run.id))

    def submitted_and_claimed() -> Script[Job]:
        # Two flow runs of one job that run again at once: the second sees the first one's retry.
        yield from jobs.lock(job_id)
        old = yield from jobs.newest_retry(job_id)
        if old.state not in ENDED_BADLY:
            raise JobAlreadyRunning(
                f"Job {old.id}, a retry of job {job_id}, is {old.state}. Wait for its end, or cancel it first."
            )
        new, _ = yield from submissions.retry(
            old.id, old.account_id, stores.settings, idempotency_key=key, request_id=old.request_id
        )
        # In one transaction: the relay, which starts flow runs for jobs that are submitted, never sees it so.
        return (yield from jobs.claim(new.id, new.attempt, identity, machine))

    row = run_with_retries(stores, submitted_and_claimed)
    run_logger("darkroom.claims").info("job %s has ended: this flow run carries out its retry, job %s", job_id, row.id)
    with held_job(stores, row) as job:
        yield job
