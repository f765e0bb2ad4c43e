"""Jobs that one process works on at the same time, each in a thread of its own.

They share one connection for their locks and one thread for their heartbeats. What stops the process stops them all:
each is released for another attempt. What stops one is noticed for that one: a cancellation, a lost lock, a stall.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Self
from uuid import UUID

from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from flows.jobs.job_locks import SharedLock, SharedLocks
from flows.jobs.lifecycle import RunningJob, ended_with_its_block, write_end
from flows.jobs.memory_limit import limit_memory
from flows.jobs.stalls import GRACE_SECONDS, stall_of
from storage.errors import CancellationRequested, JobLost, StoreFailure
from storage.logs import log_context
from storage.postgres.jobs import held_jobs, jobs
from storage.stores import Stores

log = logging.getLogger("darkroom.lifecycle")


class JobGroup:
    """The jobs that this process holds. Use as a context manager, within which they are held."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._locks = SharedLocks(stores.database)
        self._running: dict[UUID, RunningJob] = {}
        self._refused: dict[UUID, tuple[float, float]] = {}
        self._ended = threading.Event()
        beat = copy_context().run
        self._heart = threading.Thread(target=beat, args=(self._beat_on,), name="heartbeats", daemon=True)

    def __enter__(self) -> Self:
        limit_memory(self._stores.settings.jobs.memory_limit_bytes)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # Not for ever: it may be waiting for a Postgres that does not respond, and it is a daemon.
        self._heart.join(timeout=15)
        self._locks.close()

    def claim(self, job_id: UUID, attempt: int) -> RunningJob | None:
        """Take a submitted job; None while another process, or a thread of this one, still holds its lock.

        Raises JobLost when somebody else was first, StoreFailure.
        """
        if not self._locks.take(job_id):
            self._note_refusal(job_id)
            return None
        self._refused.pop(job_id, None)
        run_id = flow_run.id
        identity = UUID(str(run_id)) if run_id else None
        try:
            row = self._stores.database.run(lambda: jobs.claim(job_id, attempt, identity))
        except BaseException:
            self._locks.release(job_id)
            raise
        running = RunningJob(self._stores, row, SharedLock(self._locks, job_id))
        self._running[job_id] = running
        return running

    def _note_refusal(self, job_id: UUID) -> None:
        """Say of a job whose lock is not free for longer than it takes to be silent that nobody can work on it."""
        now, limit = time.monotonic(), self._stores.settings.jobs.silent_after_seconds
        # Those that nobody has asked for since then are another process's by now.
        self._refused = {known: times for known, times in self._refused.items() if now - times[1] < limit}
        since, _ = self._refused.get(job_id, (now, now))
        if now - since >= limit:
            log.warning(
                "job %s is not begun: for %.0f s an older attempt's process has held its lock. It goes on when that "
                "process has ended.",
                *(job_id, now - since),
            )
            since = now
        self._refused[job_id] = (since, now)

    @contextmanager
    def working_on(self, job: RunningJob) -> Generator[RunningJob]:
        """Hold a claimed job while the block, in whichever thread, works on it; it ends as in `running_job`.

        A termination signal, which comes to the main thread, is raised here by the job's next check. It never cancels
        the job, not even Prefect's button: the flow run is that of others, too.
        """
        try:
            with (
                log_context(request_id=job.row.request_id, job_id=str(job.id)),
                ended_with_its_block(job, lambda: False),
            ):
                yield job
        finally:
            # Not another attempt of it, which this process may hold once it has left this one behind.
            if self._running.get(job.id) is job:
                del self._running[job.id]

    @property
    def running(self) -> list[UUID]:
        """The jobs that are held."""
        return sorted(self._running)

    def cancel(self, job_ids: Sequence[UUID]) -> None:
        """Stop jobs that their owners have cancelled; the heartbeat would notice it a moment later."""
        for job_id in job_ids:
            if (job := self._running.get(job_id)) is not None:
                job.stop_with(CancellationRequested(f"Job {job_id} was cancelled by its owner."))

    def stop(self) -> None:
        """Let every job stop, for another attempt."""
        for job in list(self._running.values()):
            job.stop_with(TerminationSignal(signal=signal.SIGTERM))

    def abandon(self) -> None:
        """Release the jobs whose threads did not stop: another attempt does not wait until they are silent."""
        for job in list(self._running.values()):
            log.warning("job %s: its thread does not stop; it is released", job.id)
            write_end(job, lambda job=job: jobs.release(job.id, job.attempt))
            self._forget(job, JobLost(f"Job {job.id} was released, since its process ends."))

    def _beat_on(self) -> None:
        while not self._ended.wait(self._stores.settings.jobs.heartbeat_seconds):
            try:
                self._beat()
            # One that ends leaves all jobs to be taken for silent.
            except StoreFailure as error:
                log.warning("heartbeats not recorded: %s: %s", error.code, error)
            except Exception:
                log.exception("heartbeats not recorded")

    def _beat(self) -> None:
        # First, since heartbeats alone would also be taken from a process that lost its locks to another one.
        for job_id, error in self._locks.keep().items():
            if (job := self._running.get(job_id)) is not None:
                job.stop_with(error)
        if not (held := list(self._running.values())):
            return
        beats = [held_jobs.Heartbeat(job.id, job.attempt, job.progress) for job in held]
        rows = self._stores.database.run(lambda: held_jobs.heartbeats(beats))
        for job in held:
            row = rows.get(job.id)
            if row is None:
                job.stop_with(JobLost(f"Job {job.id} is no longer attempt {job.attempt}'s. This thread must stop."))
            else:
                job.noticed(row)
        for job in held:
            self._watch(job)

    def _watch(self, job: RunningJob) -> None:
        """Others do something, so the process's own watchdog sees no stall: each job has a limit of its own."""
        limit = self._stores.settings.jobs.stall_minutes * 60
        if job.idle_seconds < limit or job.id not in self._running:
            return
        error = stall_of(job.progress, job.idle_seconds, limit)
        job.stop_with(error)
        if job.idle_seconds < limit + GRACE_SECONDS:
            return
        # Nothing ends a thread that hangs in somebody else's code: it is left behind, and what it writes is refused.
        log.error("job %s: %s", job.id, error)
        write_end(job, lambda: jobs.fail(job.id, job.attempt, error.code, str(error)))
        self._forget(job, JobLost(f"Job {job.id} has failed, since nothing was done for it."))

    def _forget(self, job: RunningJob, error: JobLost) -> None:
        job.stop_with(error)
        job.stop()
        self._running.pop(job.id, None)
