"""The workflows that one flow run draws: claimed while there is room, each drawn in a thread of its own.

Which goes next is the database's word, asked for each: accounts that have fewer drawn, then the lane, then age. One
whose backends do not respond is submitted again and takes no place until they are asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import psycopg
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectSignal, TerminationSignal

from flows.generation.picture_room import PictureRoom
from flows.generation.step_failures import GivesWay
from flows.jobs.job_group import JobGroup
from flows.jobs.lifecycle import RunningJob
from flows.runs.draining_flows import DrainLock
from flows.runs.flow_names import DRAW
from flows.runs.liveness import advanced
from flows.runs.run_logs import run_logger
from flows.runs.stop_times import RELEASE_SECONDS
from storage.backoff import pause_after
from storage.errors import JobLost, StoreFailure, StoreUnavailable
from storage.postgres.connection import Database
from storage.postgres.generation import workflows
from storage.postgres.jobs import held_jobs
from storage.postgres.upkeep import pauses
from storage.stores import Stores

_log = partial(run_logger, "darkroom.generation")

LOOK_SECONDS = 1.0
"""How often rows are looked at when nobody announces any."""
TRIAL_SECONDS = 120.0
"""How long others wait for the first picture of one that may be what ended the process before this one."""
LONGEST_PAUSE_SECONDS = 5.0

Draw = Callable[[RunningJob], int]
"""Draws a workflow and returns how many pictures; called in a thread, within the job."""


@dataclass(frozen=True)
class EndedWorkflow:
    """A workflow of this run: what it came to, its pictures, and seconds from its claim."""

    job_id: UUID
    state: str
    pictures: int
    seconds: float


@dataclass
class _Thread:
    thread: threading.Thread
    job: RunningJob
    began: float
    has_ended: bool = False
    gives_way: bool = False


class RunningWorkflows:
    """Draws what is due until nothing has been for a while."""

    def __init__(
        self, stores: Stores, group: JobGroup, draw: Draw, ended: Callable[[], None], lock: DrainLock | None = None
    ) -> None:
        """`ended` is called in the thread of a workflow when that has ended; `lock` is of the one run that draws."""
        self._stores, self._group, self._draw, self._ended = stores, group, draw, ended
        self._lock, self._is_replaced = lock, False
        self._signal: PrefectSignal | None = None
        self._threads: dict[UUID, _Thread] = {}
        self._wake = threading.Event()
        self._due_in: float | None = None
        self._room, self._waits_for_room = PictureRoom(stores.settings), False
        self.done: list[EndedWorkflow] = []

    def run(self) -> None:
        """Draw until nothing has been due, drawn or postponed for the settings' seconds. A flow that is paused
        meanwhile claims no more, nor does a run whose lock another one has since Postgres was away. While that is
        unavailable it waits, as long as the settings have patience; what it else refuses only keeps it from claiming.

        Raises StoreUnavailable after that, StoreFailure when nothing is drawn either, and what ends the process or
        suspends the flow run: then every workflow is released.
        """
        listener = WorkflowListener(self._stores.database, self._wake.set)
        listener.start()
        try:
            self._draw_until_idle()
        except BaseException:
            self._stop()
            raise
        finally:
            listener.stop()

    def _draw_until_idle(self) -> None:
        settings = self._stores.settings
        quiet_since, failures, failing_since = time.monotonic(), 0, 0.0
        while True:
            self._wake.clear()
            advanced()
            try:
                paused = self._look()
            except StoreFailure as error:
                failures += 1
                failing_since = failing_since or time.monotonic()
                passes = isinstance(error, StoreUnavailable)
                if passes and time.monotonic() - failing_since > settings.jobs.patience_seconds:
                    raise
                if not passes and not self._threads:
                    raise
                _log().warning("no workflow is claimed: %s: %s", error.code, error)
                time.sleep(pause_after(failures, LOOK_SECONDS, LONGEST_PAUSE_SECONDS))
                continue
            failures, failing_since = 0, 0.0
            if self._threads or self._due_in is not None or self._waits_for_room:
                quiet_since = time.monotonic()
            # One that has found nothing was started for what another run has taken.
            elif paused or not self.done or time.monotonic() - quiet_since >= settings.generation.linger_seconds:
                return
            self._wake.wait(LOOK_SECONDS if self._due_in is None else min(LOOK_SECONDS, max(self._due_in, 0.02)))

    def _look(self) -> bool:
        """Stop what was cancelled, claim what there is room for; returns whether the flow is paused."""
        self._stop_when_suspended()
        self._reap()
        database = self._stores.database
        if self._threads:
            self._group.cancel(database.run(workflows.cancelling(list(self._threads))))
        paused = database.run(pauses.is_paused(DRAW)) or self._has_lost_its_lock()
        # Before the claims: what falls due between the two is seen by the next look.
        self._due_in = None if paused else database.run(workflows.due_in)
        if not paused:
            self._claim()
        return paused

    def _stop_when_suspended(self) -> None:
        context = FlowRunContext.get()
        if context is not None:
            # Tasks of such a run only raise, so whatever was claimed would end at its first step.
            context.flow_run_suspension_request.raise_if_requested()
        if self._signal is not None:
            raise self._signal

    def _has_lost_its_lock(self) -> bool:
        """Two that draw would take twice as much at once: this one ends with what it has."""
        if self._lock is not None and not self._is_replaced and not self._lock.keep():
            self._is_replaced = True
            _log().warning("another run draws since Postgres was away: this one claims no more")
        return self._is_replaced

    def _reap(self) -> None:
        held = self._group.running
        for job_id, one in list(self._threads.items()):
            # Or it was left behind, since nothing was done for it: its place is free.
            if one.has_ended or (one.job.is_lost and job_id not in held):
                del self._threads[job_id]

    def _make_room(self) -> None:
        """Let an account that has more than half of the places give up the one that it got last, while another one
        waits that has fewer. What was drawn stays; the rest is drawn when its turn comes again."""
        places = self._stores.settings.generation.at_once
        if len(self._threads) < places or any(one.gives_way for one in self._threads.values()):
            return
        found = self._stores.database.run(workflows.over_share(list(self._threads), max(1, places // 2)))
        if found is not None:
            self._threads[found].gives_way = True
            self._threads[found].job.stop_with(GivesWay())

    def _claim(self) -> None:
        has_room = self._room.is_there()
        self._waits_for_room = not has_room and self._stores.database.run(workflows.next_due([])) is not None
        if not has_room:
            return
        self._make_room()
        passed: list[UUID] = []
        while len(self._threads) < self._stores.settings.generation.at_once:
            due = self._stores.database.run(workflows.next_due([*passed, *self._threads]))
            if due is None or self._has_to_wait(due.id):
                return
            try:
                job = self._group.claim(due.id, due.attempt)
            except JobLost:  # cancelled, or claimed by another run, since the look
                job = None
            if job is None:
                passed.append(due.id)
                continue
            self._begin(job)

    def _has_to_wait(self, job_id: UUID) -> bool:
        recent = [one for one in self._threads.values() if time.monotonic() - one.began < TRIAL_SECONDS]
        # A claim is a heartbeat: since then, by the clock of Postgres.
        beside = {one.job.id: one.job.row.heartbeat_at for one in recent if one.job.row.heartbeat_at is not None}
        return bool(beside) and self._stores.database.run(held_jobs.has_to_wait(job_id, beside))

    def _begin(self, job: RunningJob) -> None:
        # What it logs, and its tasks, are this flow run's.
        work = copy_context().run
        thread = threading.Thread(target=work, args=(self._work, job.id), name=f"draw-{job.id}", daemon=True)
        self._threads[job.id] = _Thread(thread, job, time.monotonic())
        thread.start()

    def _work(self, job_id: UUID) -> None:
        one = self._threads[job_id]
        job = one.job
        began, pictures, state = time.monotonic(), 0, ""
        try:
            with self._group.working_on(job), self._room.released_when_full(job):
                pictures = self._draw(job)
            state = (job.outcome.name or "").lower()
        except TerminationSignal:
            state = "released"
        except PrefectSignal as signal:
            state, self._signal = "released", signal
        except (JobLost, StoreFailure) as error:
            state = error.code
            _log().warning("job %s: %s: %s", job.id, error.code, error)
        except BaseException:  # noqa: BLE001 - nothing of one workflow may end the others
            state = "crashed"
            _log().exception("job %s: its thread ended", job.id)
        finally:
            self.done.append(EndedWorkflow(job.id, state, pictures, time.monotonic() - began))
            self._ended()
            one.has_ended = True
            self._wake.set()

    def _stop(self) -> None:
        self._group.stop()
        ends = time.monotonic() + RELEASE_SECONDS
        for one in self._threads.values():
            one.thread.join(max(0.0, ends - time.monotonic()))
        self._group.abandon()


class WorkflowListener(threading.Thread):
    """Calls `wake` when a workflow can be drawn or is to stop. Losing a notification delays it by a look."""

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        super().__init__(name="workflow-listener", daemon=True)
        self._database, self._wake = database, wake
        self._ended = threading.Event()

    def run(self) -> None:
        """Listen until it is stopped; connect again after the connection broke."""
        while not self._ended.is_set():
            try:
                with self._database.connect() as connection:
                    connection.execute("listen workflows")
                    # Something may have come before, or while there was no connection.
                    self._wake()
                    while not self._ended.is_set():
                        for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                            self._wake()
            except (StoreFailure, psycopg.Error):
                self._ended.wait(LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Listen no more, within a second."""
        self._ended.set()
