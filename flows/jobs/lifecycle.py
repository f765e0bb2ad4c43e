"""A job around a flow run: claim, heartbeat, succeed, fail, cancel, release. Once for all flows.

    with open_stores(load_settings()) as stores, running_job(stores, job_id, attempt, machine) as job:
        ...                     # job.check() at every step; job.run(...) for every write
    return job.outcome

Every write names the attempt, so that a process whose job has a newer attempt writes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectSignal, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, State

from flows.jobs.failures import named_failure
from flows.jobs.job_locks import JobLock, own_lock
from flows.jobs.memory_limit import limit_memory
from flows.jobs.stalls import StallLimit, stopped_when_stalled
from flows.runs import crash_points
from flows.runs.liveness import advanced
from flows.runs.retries import run_with_retries, with_retries
from storage.backoff import retried
from storage.errors import (
    CancellationRequested,
    JobLost,
    JobStalled,
    StatementTimeout,
    StoreFailure,
    StoreUnavailable,
)
from storage.logs import log_context
from storage.postgres.connection import Query, Script
from storage.postgres.jobs import held_jobs, jobs
from storage.records.jobs.jobs import Job, JobState, Progress
from storage.records.jobs.machines import Machine
from storage.stores import Stores

T = TypeVar("T")

log = logging.getLogger("darkroom.lifecycle")

TICK_SECONDS = 0.5


class RunningJob:
    """A job that this process holds."""

    def __init__(self, stores: Stores, job: Job, lock: JobLock) -> None:
        self.stores = stores
        self.row = job
        self.id, self.attempt = job.id, job.attempt
        self.outcome: State[Any] = Completed(message=f"Job {job.id} succeeded.")
        self.progress = job.progress or Progress(phase="start")
        self.last_words: list[Callable[[Exception], None]] = []
        """Called, in another thread, when the process is about to leave because its main thread hangs."""
        self._lock = lock
        self._stop: JobLost | CancellationRequested | JobStalled | TerminationSignal | None = None
        self._stopping = threading.Event()
        self._past_cancellation: set[int] = set()
        self._ended = threading.Event()
        self._last_tick = 0.0
        self._advanced_at = time.monotonic()
        self._heart: threading.Thread | None = None

    def check(self) -> None:
        """Raise CancellationRequested or JobLost once this process should stop. Cheap: call it at every step."""
        self._advance()
        past = threading.get_ident() in self._past_cancellation
        if self._stop is not None and not (past and isinstance(self._stop, CancellationRequested | TerminationSignal)):
            raise self._stop

    def stop_with(self, error: JobLost | CancellationRequested | JobStalled | TerminationSignal) -> None:
        """Let the next check raise an error; the first counts, unless the job is lost."""
        if self._stop is None or isinstance(error, JobLost):
            self._stop = error
        self._stopping.set()

    def wait(self, seconds: float) -> None:
        """Do nothing for so long. Raises as `check`, at once."""
        self._stopping.wait(seconds)
        self.check()

    @property
    def is_lost(self) -> bool:
        """Whether it was found to be another attempt's by now, or ended."""
        return isinstance(self._stop, JobLost)

    @property
    def idle_seconds(self) -> float:
        """How long nothing has been done or reported."""
        return time.monotonic() - self._advanced_at

    def _advance(self) -> None:
        advanced()
        self._advanced_at = time.monotonic()

    @contextmanager
    def past_cancellation(self) -> Generator[None]:
        """In the block neither a cancellation nor a termination signal that came as an error stops this thread, so that
        it can store what it has reached; a lost job still does. Other threads learn of it at once."""
        thread = threading.get_ident()
        self._past_cancellation.add(thread)
        try:
            yield
        finally:
            self._past_cancellation.discard(thread)

    def run(self, script: Callable[[], Query[T] | Script[T]]) -> T:
        """Carry out a script in one transaction, waiting while Postgres is unavailable. The script is built again for
        each try."""
        return run_with_retries(self.stores, script, self.check)

    def with_retries(self, call: Callable[[], T]) -> T:
        """What `call` returns, tried again while a store is unavailable, as long as the job may go on."""
        return with_retries(self.stores, call, self.check)

    def report(self, phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        """Say how far the job is: at once to listeners (at most twice a second), with the next heartbeat to the row."""
        self._advance()
        self.progress = Progress(phase=phase, step=step, total=total, loss=loss)
        now = time.monotonic()
        if now - self._last_tick >= TICK_SECONDS or step == total:
            self._last_tick = now
            # Through Valkey, not the row: an update of the row for each step would leave as many dead row versions
            # behind.
            self.stores.progress.publish(self.id, self.progress)

    def reach(self, point: str) -> None:
        """A named point where a fault test may kill or hold this process."""
        crash_points.reach(self.stores.settings, point)

    def start(self) -> None:
        """Begin the heartbeat; what it logs belongs to what this does."""
        beat = copy_context().run
        self._heart = threading.Thread(target=beat, args=(self._beat,), name=f"heartbeat-{self.id}", daemon=True)
        self._heart.start()

    def stop(self) -> None:
        """End the heartbeat and release the lock."""
        self._ended.set()
        if self._heart is not None:
            # Not for ever: the heart may be waiting for a Postgres that does not respond, and it is a daemon.
            self._heart.join(timeout=15)
        self._lock.release()

    def _beat(self) -> None:
        # An error of Postgres ends no heartbeat: with it the process would be taken for silent as soon as Postgres is
        # back.
        while not self._ended.wait(self.stores.settings.jobs.heartbeat_seconds):
            try:
                # First, since the heartbeat alone would also be taken from a process that lost its lock to another one.
                self._lock.keep()
                row = self.stores.database.run(jobs.heartbeat(self.id, self.attempt, self.progress))
                self.noticed(row)
            except StoreFailure as error:
                log.warning("job %s: heartbeat not recorded: %s: %s", self.id, error.code, error)
            except JobLost as error:
                self.stop_with(error)
                return

    def noticed(self, row: Job) -> None:
        """What the job's row says now: its owner may have asked to stop."""
        if row.state is JobState.CANCELLING:
            self.stop_with(CancellationRequested(f"Job {self.id} was cancelled by its owner."))


@contextmanager
def running_job(stores: Stores, job_id: UUID, attempt: int, machine: Machine | None = None) -> Generator[RunningJob]:
    """Hold a job while the block works on it, and end it by how the block ends. `machine` does the work: what the job's
    recipe leaves open is resolved on it by the first attempt.

    The block ends well: it has written the job's end itself (tx4) or `succeed` is left to `finish`. It raises
    CancellationRequested: cancelled. JobCannotSucceed, out of memory, disk full: failed with that reason. A termination
    signal, a suspended run: attempted again at once, or cancelled if its owner asked. What is no Exception: a silent
    attempt. JobLost, a store unavailable for too long, a statement that was cancelled: the relay's sweep does the rest.
    """
    job = _claim(stores, job_id, attempt, machine)
    with _working_on(job):
        yield job


@contextmanager
def held_job(stores: Stores, row: Job) -> Generator[RunningJob]:
    """As `running_job`, for a job that was claimed for this process in the transaction that made it."""
    lock = with_retries(stores, lambda: own_lock(stores.database, row.id, wait_seconds=0))
    with _working_on(RunningJob(stores, row, lock)) as job:
        yield job


@contextmanager
def _working_on(job: RunningJob) -> Generator[RunningJob]:
    limit_memory(job.stores.settings.jobs.memory_limit_bytes)
    minutes = job.stores.settings.jobs.stall_minutes
    limit = StallLimit(minutes * 60, lambda: job.progress, lambda error: _give_up(job, error))
    with (
        log_context(request_id=job.row.request_id, job_id=str(job.id)),
        ended_with_its_block(job, _cancelled_in_prefect),
    ):
        job.start()
        with stopped_when_stalled(limit):
            yield job


@contextmanager
def ended_with_its_block(job: RunningJob, is_cancelled: Callable[[], bool]) -> Generator[None]:
    """End a job by how the block ends, see `running_job`. `is_cancelled`: whether a termination signal cancels the job;
    else it is attempted again."""
    try:
        yield
    except CancellationRequested as error:
        write_end(job, lambda: jobs.end_cancelling(job.id, job.attempt))
        job.outcome = Cancelled(message=str(error))
    # BaseExceptions, so no `except Exception` on the way has swallowed them; tasks of a suspended run raise one.
    # Raised again: Prefect's engine has to see it, or it would report the run as finished.
    except (TerminationSignal, PrefectSignal, KeyboardInterrupt):
        if is_cancelled():
            write_end(job, lambda: _cancel(job))
        else:
            write_end(job, lambda: jobs.release(job.id, job.attempt))
        raise
    except (JobLost, StoreUnavailable, StatementTimeout):
        raise
    except Exception as error:
        failure = named_failure(error, job.progress.phase)
        log.exception("job %s failed: %s", job.id, failure.code)
        write_end(job, lambda: jobs.fail(job.id, job.attempt, failure.code, str(failure)))
        job.outcome = Failed(message=f"{failure.code}: {failure}")
    except BaseException:
        write_end(job, lambda: held_jobs.die(job.id, job.attempt, job.stores.settings.jobs.max_silent_attempts))
        raise
    finally:
        job.stop()


def _give_up(job: RunningJob, error: JobStalled) -> None:
    """Write the end of a job whose process is about to leave, and report it to Prefect, whose worker would else call it
    crashed."""
    write_end(job, lambda: jobs.fail(job.id, job.attempt, error.code, str(error)))
    for say in job.last_words:
        say(error)
    if flow_run.id:
        with get_client(sync_client=True) as client:
            state = Failed(message=f"{error.code}: {error}")
            client.set_flow_run_state(UUID(str(flow_run.id)), state, force=True)


def _claim(stores: Stores, job_id: UUID, attempt: int, machine: Machine | None) -> RunningJob:
    # An older attempt's process may still be at work, unheard. Its lock is free when it notices, or when Postgres
    # notices that its connection is gone; until then two of them would write one job's checkpoints.
    patience = stores.settings.jobs.silent_after_seconds
    lock = with_retries(stores, lambda: own_lock(stores.database, job_id, wait_seconds=patience))
    run_id = flow_run.id
    identity = UUID(str(run_id)) if run_id else None
    try:
        row = run_with_retries(stores, lambda: jobs.claim(job_id, attempt, identity, machine))
    # The lock's connection is not in a `with` here; leaked, it would hold the job until the garbage is collected.
    except BaseException:
        lock.release()
        raise
    return RunningJob(stores, row, lock)


def _cancelled_in_prefect() -> bool:
    """Whether the termination comes from Prefect's cancel button; else the process is only asked to stop."""
    if not flow_run.id:
        return False
    try:
        with get_client(sync_client=True) as client:
            # SIGTERM says nothing of its reason: the cancel button and the shutdown of a worker look alike.
            state = client.read_flow_run(UUID(str(flow_run.id))).state
    except (httpx.HTTPError, ObjectNotFound):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _cancel(job: RunningJob) -> Script[Job]:
    # Prefect's button left the job's row as it was, and only a job that is being cancelled can end as cancelled.
    yield from jobs.cancel(job.id, job.row.account_id)
    return (yield from jobs.end_cancelling(job.id, job.attempt))


def write_end(job: RunningJob, script: Callable[[], Script[Job]]) -> None:
    """Write how a job ended. If it is no longer ours, or Postgres stays unavailable, the relay's sweep finds it
    silent."""
    try:
        retried(lambda: job.stores.database.run(script), StoreUnavailable, patience_seconds=15)
    except (JobLost, StoreFailure) as error:
        log.warning("job %s: its end was not written: %s: %s", job.id, error.code, error)
