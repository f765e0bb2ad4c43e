"""Jobs: submit, claim, watch, end. Every write of a flow says which attempt it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import IdempotencyKeyReused, InvalidRequest, JobAlreadyRunning, JobLost, TooManyRequests, WrongState
from storage.postgres.accounts import quotas
from storage.postgres.connection import Query, Rows, Script, column, count, load_statements, many, maybe, one
from storage.postgres.events import outbox
from storage.postgres.jobs import job_files, job_stages
from storage.records.accounts.quotas import Limits
from storage.records.events.events import JobCancelled, JobCancelling, JobFailed, JobStarted, JobSubmitted, JobSucceeded
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState, Progress, Stage
from storage.records.jobs.machines import Machine, resolve_on

SQL = load_statements(__file__)


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is made from. `request_hash` is of what the caller sent, to distinguish a repeat from a reused key;
    `request_id` is the id of the API's request, for the logs; `again`: stages that a retry does again. It begins at the
    checkpoint of `retry_step`, else at the newest one up to step `retry_latest`."""

    account_id: UUID
    kind: JobKind
    request: dict[str, Any]
    recipe_hash: str
    request_hash: str
    data_set_id: UUID | None = None
    retry_of: UUID | None = None
    retry_latest: int = 0
    retry_step: int | None = None
    again: tuple[str, ...] = ()
    request_id: str | None = None


def _value(statement: str, parameters: Mapping[str, Any], name: str) -> Query[Any]:
    def read(rows: Rows) -> Any:
        return rows[0][name]

    return Query(statement, parameters, read)


def submit(
    new: NewJob,
    *,
    idempotency_key: str | None,
    limit: int,
    limits: Limits,
    earlier_one: Callable[[], Script[Job | None]] | None = None,
) -> Script[tuple[Job, bool]]:
    """The committed job for a request, and whether it is new (tx1). A key seen before returns its first job, and so
    does `earlier_one`, which is asked while the account submits nothing else; it takes the place of a key.

    Raises IdempotencyKeyReused when the key came with another request, TooManyRequests when the account already has
    `limit` unfinished jobs, QuotaExceeded when it is full: what a job makes is not known before, so one may begin as
    long as there is room.
    """
    job_id = uuid4()
    if idempotency_key is not None:
        # The key is tied to the job's id before the job is there; its reference is checked at the commit (deferred). A
        # repeat is served before the limits are asked: it makes nothing new.
        earlier = yield from _earlier_job(new, idempotency_key, job_id)
        if earlier is not None:
            return earlier, False
    yield from column(SQL["hold_account"], {"account_id": new.account_id}, UUID)
    if idempotency_key is None and earlier_one is not None and (earlier := (yield from earlier_one())) is not None:
        return earlier, False
    unfinished: int = yield from _value(SQL["unfinished"], {"account_id": new.account_id}, "unfinished")
    if unfinished >= limit:
        raise TooManyRequests(f"{unfinished} unfinished jobs; the limit is {limit}. Wait for some to end.", 60)
    # The last lock before the writing, in every transaction that takes it, so that two never wait for each other.
    yield from quotas.hold(new.account_id, limits)
    job = yield from one(
        SQL["insert"],
        {
            "id": job_id,
            "account_id": new.account_id,
            "kind": new.kind,
            "request": Jsonb(new.request),
            "recipe_hash": new.recipe_hash,
            "data_set_id": new.data_set_id,
            "retry_of": new.retry_of,
            "request_id": new.request_id,
        },
        Job,
        "the new job",
    )
    if new.retry_of is not None:
        # A fit that is asked for again begins at its first step.
        if Stage.FIT not in new.again:
            yield from _inherit(job_id, new.retry_of, new.retry_latest, new.retry_step)
        yield from job_stages.inherit(job_id, new.retry_of, new.again)
    yield from outbox.append(JobSubmitted(job_id=job.id, job_kind=job.kind, attempt=job.attempt))
    return job, True


def _inherit(job_id: UUID, retry_of: UUID, latest: int, step: int | None) -> Script[None]:
    first, last = (0, latest) if step is None else (step, step)
    inherited = yield from job_files.inherit_checkpoint(job_id, retry_of, first, last)
    if step is not None and not inherited:
        # Retention took it since it was looked for.
        raise InvalidRequest({"step": f"the checkpoint of step {step} is gone"})


def _earlier_job(new: NewJob, key: str, job_id: UUID) -> Script[Job | None]:
    parameters = {"account_id": new.account_id, "key": key, "request_hash": new.request_hash, "job_id": job_id}
    fresh = yield from column(SQL["reserve_key"], parameters, UUID)
    if fresh:
        return None
    row = yield from Query(SQL["recall_key"], parameters, lambda rows: rows[0])
    if row["request_hash"] != new.request_hash:
        raise IdempotencyKeyReused(
            f"Idempotency-Key '{key}' was used for a different request. Use a new key for a new request."
        )
    return (yield from get(row["job_id"]))


def is_submitted(account_id: UUID, key: str) -> Query[bool]:
    """Whether an account has submitted a job under an Idempotency-Key."""
    return Query(SQL["recall_key"], {"account_id": account_id, "key": key}, bool)


def get(job_id: UUID) -> Query[Job]:
    """A job. Reading raises NotFound."""
    return one(SQL["get"], {"id": job_id}, Job, f"No job {job_id}.")


def get_for_account(job_id: UUID, account_id: UUID) -> Query[Job]:
    """An account's own job. Another account's job is as good as none: NotFound."""
    parameters = {"id": job_id, "account_id": account_id}
    return one(SQL["get_for_account"], parameters, Job, f"No job {job_id}.")


def list_for_account(
    account_id: UUID,
    *,
    before: int | None = None,
    kind: JobKind | None = None,
    state: JobState | None = None,
    limit: int = 50,
) -> Query[list[Job]]:
    """A page of an account's jobs, newest first; `before` is the last sequence number of the page before."""
    parameters = {"account_id": account_id, "before": before, "kind": kind, "state": state, "limit": limit}
    return many(SQL["list_for_account"], parameters, Job)


def alive() -> Query[list[Job]]:
    """Every job that has not ended."""
    return many(SQL["alive"], {}, Job)


def lock(job_id: UUID) -> Query[int]:
    """Hold a job's row until the transaction ends."""
    return count(SQL["lock"], {"id": job_id})


def newest_retry(job_id: UUID) -> Query[Job]:
    """Of a job, its retries and theirs the one that was submitted last. Reading raises NotFound."""
    return one(SQL["newest_retry"], {"id": job_id}, Job, f"No job {job_id}.")


def succeeded_in(flow_run_id: UUID) -> Query[list[Job]]:
    """The jobs that succeeded in a flow run, the oldest first."""
    return many(SQL["succeeded_in"], {"flow_run_id": flow_run_id}, Job)


def queue_position(job: Job) -> Query[int]:
    """How many jobs go before a submitted job."""
    return _value(SQL["queue_position"], {"kind": job.kind, "sequence": job.sequence}, "ahead")


def claim(job_id: UUID, attempt: int, flow_run_id: UUID | None, machine: Machine | None = None) -> Script[Job]:
    """Take a submitted job for this attempt (tx3); what its recipe leaves open is resolved on `machine`, once for all
    its attempts.

    Raises JobAlreadyRunning when another flow run holds it, JobLost when a newer attempt or the end came first,
    NotFound when there is no such job.
    """
    parameters = {"id": job_id, "attempt": attempt, "flow_run_id": flow_run_id}
    job = yield from maybe(SQL["claim"], parameters, Job)
    if job is None:
        current = yield from get(job_id)
        if current.attempt == attempt and current.state in (JobState.RUNNING, JobState.CANCELLING):
            raise JobAlreadyRunning(f"Job {job_id} is already running as flow run {current.flow_run_id}.")
        raise JobLost(f"Job {job_id} is {current.state} at attempt {current.attempt}; this was attempt {attempt}.")
    yield from outbox.append(JobStarted(job_id=job_id, attempt=attempt))
    return job if machine is None else (yield from _resolved(job, machine))


def _resolved(job: Job, machine: Machine) -> Script[Job]:
    try:
        resolved = resolve_on(machine, job.kind, job.request)
    except msgspec.ValidationError:
        return job  # nobody can carry it out: the flow that claims it says so, and the job fails
    if resolved is None:
        return job
    parameters = {"id": job.id, "request": Jsonb(resolved.request), "recipe_hash": resolved.recipe_hash}
    return (yield from one(SQL["resolve"], parameters, Job, f"No job {job.id}."))


def rewrite(job_id: UUID, request: Mapping[str, Any], recipe_hash: str) -> Query[Job]:
    """Another form of what a job asks for, in the transaction that found it in an older one."""
    parameters = {"id": job_id, "request": Jsonb(dict(request)), "recipe_hash": recipe_hash}
    return one(SQL["resolve"], parameters, Job, f"No job {job_id}.")


def heartbeat(job_id: UUID, attempt: int, progress: Progress | None) -> Script[Job]:
    """Say that this attempt is alive; returns the row, whose state may be cancelling. Raises JobLost."""
    document = None if progress is None else Jsonb(msgspec.to_builtins(progress))
    parameters = {"id": job_id, "attempt": attempt, "progress": document}
    job = yield from maybe(SQL["heartbeat"], parameters, Job)
    return _held(job, job_id, attempt)


def _held(row: Job | None, job_id: UUID, attempt: int) -> Job:
    if row is None:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s. This process must stop; nothing was written.")
    return row


def note_flow_run(job_id: UUID, attempt: int, flow_run_id: UUID) -> Query[list[UUID]]:
    """Record which flow run Prefect made for an attempt (tx2). Nothing happens once the job went on."""
    parameters = {"id": job_id, "attempt": attempt, "flow_run_id": flow_run_id}
    return column(SQL["note_flow_run"], parameters, UUID)


def note_tracking_run(job_id: UUID, attempt: int, tracking_run_id: str) -> Query[list[UUID]]:
    """Record the MLflow run of a job."""
    parameters = {"id": job_id, "attempt": attempt, "tracking_run_id": tracking_run_id}
    return column(SQL["note_tracking_run"], parameters, UUID)


def untracked(limit: int = 100) -> Query[list[Job]]:
    """Training jobs that ran and ended while MLflow was unavailable, the oldest first."""
    return many(SQL["untracked"], {"limit": limit}, Job)


def succeed(job_id: UUID, attempt: int, model_version_id: int | None) -> Script[Job]:
    """End a running job well. Raises JobLost."""
    parameters = {"id": job_id, "attempt": attempt, "model_version_id": model_version_id}
    job = _held((yield from maybe(SQL["succeed"], parameters, Job)), job_id, attempt)
    yield from outbox.append(JobSucceeded(job_id=job_id, model_version_id=model_version_id))
    return job


def fail(job_id: UUID, attempt: int, code: str, reason: str) -> Script[Job]:
    """End a job as failed, with a reason that says what to do. A job being cancelled ends cancelled. Raises JobLost."""
    parameters = {"id": job_id, "attempt": attempt, "code": code, "reason": reason}
    job = yield from maybe(SQL["fail"], parameters, Job)
    if job is None:
        return (yield from end_cancelling(job_id, attempt))
    yield from outbox.append(JobFailed(job_id=job_id, code=code, reason=reason))
    return job


def end_cancelling(job_id: UUID, attempt: int) -> Script[Job]:
    """End a job whose owner asked to stop. Raises JobLost."""
    parameters = {"id": job_id, "attempt": attempt}
    job = _held((yield from maybe(SQL["end_cancelling"], parameters, Job)), job_id, attempt)
    yield from outbox.append(JobCancelled(job_id=job_id))
    return job


def release(job_id: UUID, attempt: int) -> Script[Job]:
    """Submit a running job again because its process has to stop. A job being cancelled ends cancelled."""
    job = yield from _submit_again(job_id, attempt, silent=0)
    if job is None:
        return (yield from end_cancelling(job_id, attempt))
    return job


def start_again(job: Job) -> Script[Job]:
    """Give an unfinished job whose flow run is known to be gone a new attempt. Raises JobLost."""
    return _held((yield from _submit_again(job.id, job.attempt, silent=0)), job.id, job.attempt)


def _submit_again(job_id: UUID, attempt: int, *, silent: int) -> Script[Job | None]:
    parameters = {"id": job_id, "attempt": attempt, "silent": silent}
    job = yield from maybe(SQL["submit_again"], parameters, Job)
    if job is not None:
        yield from outbox.append(JobSubmitted(job_id=job_id, job_kind=job.kind, attempt=job.attempt))
    return job


def cancel(job_id: UUID, account_id: UUID) -> Script[Job]:
    """Ask a job to stop: a submitted one is cancelled, a running one becomes cancelling, a cancelling one stays so.

    Raises NotFound, or WrongState when the job has ended.
    """
    parameters = {"id": job_id, "account_id": account_id}
    # The job may move from submitted to running between the two statements below; under the lock it cannot.
    yield from Query(SQL["lock"], parameters, len)
    job = yield from maybe(SQL["cancel_submitted"], parameters, Job)
    if job is not None:
        yield from outbox.append(JobCancelled(job_id=job_id, flow_run_id=_own_run(job)))
        return job
    job = yield from maybe(SQL["cancel_running"], parameters, Job)
    if job is not None:
        yield from outbox.append(JobCancelling(job_id=job_id, flow_run_id=_own_run(job)))
        return job
    current = yield from get_for_account(job_id, account_id)
    if current.state in TERMINAL:
        raise WrongState(f"Job {job_id} has already ended: {current.state}. There is nothing to cancel.")
    return current


def _own_run(job: Job) -> UUID | None:
    """The flow run that carries out this job alone. One that draws carries out many: it is not to be cancelled."""
    return None if job.kind is JobKind.GENERATION else job.flow_run_id


def delete_files(job_id: UUID, account_id: UUID) -> Script[None]:
    """Forget what a job that has ended made, and its checkpoints: its account has the room again after the sweep.

    Raises NotFound, or WrongState while the job has not ended.
    """
    yield from Query(SQL["lock"], {"id": job_id}, len)
    current = yield from get_for_account(job_id, account_id)
    if current.state not in TERMINAL:
        raise WrongState(f"Job {job_id} is {current.state}: it still makes its files. Cancel it, or wait for its end.")
    yield from job_files.delete_all(job_id)


def sweep_silent(*, silent_after_seconds: float, max_silent_attempts: int) -> Script[list[Job]]:
    """Give silent jobs a new attempt, fail those that fell silent too often, end those being cancelled. Returns
    them."""
    silent = yield from many(SQL["silent"], {"seconds": silent_after_seconds}, Job)
    moved: list[Job] = []
    for job in silent:
        if job.state is JobState.CANCELLING:
            moved.append((yield from end_cancelling(job.id, job.attempt)))
        else:
            moved.append((yield from _after_silence(job, max_silent_attempts)))
    return moved


def replace_dead_flow_run(job: Job, max_silent_attempts: int) -> Script[Job]:
    """Give a job whose flow run ended in Prefect before it claimed the job a new attempt. Raises JobLost."""
    return (yield from _after_silence(job, max_silent_attempts))


def _after_silence(job: Job, max_silent_attempts: int) -> Script[Job]:
    silent = job.silent_attempts + 1
    # A checkpoint sets the count back to 0: a job that gets on, however often it is killed, is never failed for
    # silence.
    if silent >= max_silent_attempts:
        reason = (
            f"The flow's process died or fell silent {silent} times without a newer checkpoint. "
            "Look at the flow runs' logs in Prefect, then retry the job."
        )
        return (yield from fail(job.id, job.attempt, "silent", reason))
    return _held((yield from _submit_again(job.id, job.attempt, silent=1)), job.id, job.attempt)


def waiting_with_flow_run(older_than_seconds: float) -> Query[list[Job]]:
    """Submitted jobs that a flow run was made for; reconcile asks Prefect whether it still lives."""
    return many(SQL["waiting_with_flow_run"], {"seconds": older_than_seconds}, Job)
