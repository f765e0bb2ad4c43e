"""The relay: committed events to effects, the sweep for silent jobs, and alarms. `python -m flows.relay` runs it.

It claims one due event at a time in order (changes of the catalogue many at a time), does its effect under a key that
makes repeating it harmless, and acknowledges the row. A crash anywhere only repeats. While Prefect is away events keep
their place.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import assert_never, cast
from uuid import UUID

import psycopg
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from flows import alarms
from flows.indexing.draining import SYNC
from flows.notifications.deliver import DELIVER
from flows.notifications.expanding import expand
from flows.notifications.fan_out import FAN_OUT
from flows.orchestrator import FlowPaused, Orchestrator, PrefectAway
from flows.pausing import follow
from storage.errors import JobLost, StoreUnavailable
from storage.postgres import deliveries, jobs, models, notifications, outbox, pauses, search_queue
from storage.postgres.connection import Script
from storage.records.events import (
    CHANGES,
    ChangeEvent,
    CommentDeleted,
    CommentEdited,
    CommentWritten,
    CreatorsChanged,
    Event,
    FollowAdded,
    FollowRemoved,
    ImagesChanged,
    JobCancelled,
    JobCancelling,
    JobFailed,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    ModelsChanged,
    ModelVersionPublished,
    OutboxRow,
    ReactionAdded,
    ReactionRemoved,
    SampleReady,
    merged,
)
from storage.records.freshness import Switch
from storage.records.jobs import Job, JobKind, JobState
from storage.records.search import Kind
from storage.settings import load_settings
from storage.stores import Stores, open_stores

log = logging.getLogger("darkroom.relay")

FLOWS: dict[JobKind, str] = {
    JobKind.TRAINING: "train-dreambooth",
    JobKind.GENERATION: "generate-images",
}
"""Which flow carries out which kind of job, deployed under its own name."""

DRAINS: dict[str, Callable[[str], Script[int | None]]] = {
    SYNC: search_queue.drain_wanted,
    FAN_OUT: notifications.fan_out_wanted,
    DELIVER: deliveries.wanted,
}
"""Flows that empty a queue, each deployed under its own name, and what says that a run of it is wanted."""

CHANGES_AT_ONCE = 500
"""Changes of the catalogue that have their effect together: those of an import come by the thousand."""
TURN_SECONDS, BREATH_SECONDS = 1.0, 0.01
"""Events that never end hold up alarms, sweeps and the drains of others for so long; then they are gone on with."""
SWEEP_SECONDS = 5.0
DEAD_FLOW_RUN_SECONDS = 30.0
ALARM_SECONDS = 30.0
START_SECONDS = 45.0
LONGEST_PAUSE_SECONDS = 15.0


class Relay:
    """One relay's loop. Several may run: each event is claimed by one of them."""

    def __init__(self, stores: Stores, prefect: SyncPrefectClient) -> None:
        self._stores, self._orchestrator = stores, Orchestrator(prefect)
        self._firings = alarms.Firings(stores.database, self._orchestrator)
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until told to stop: on a NOTIFY, else every poll."""
        poll = self._stores.settings.jobs.relay_poll_seconds
        pause, last_sweep, last_alarms, last_look = 0.0, 0.0, 0.0, time.monotonic()
        while not self.stopping.is_set():
            try:
                with self._stores.database.connect() as listener:
                    listener.execute("listen outbox")
                    while not self.stopping.is_set():
                        # Before anything that asks Prefect: while that is away, what stands still is said all the same.
                        if not last_alarms or time.monotonic() - last_alarms >= ALARM_SECONDS:
                            last_alarms = time.monotonic()
                            self.sound_alarms(datetime.now(UTC))
                        ends = time.monotonic() + TURN_SECONDS
                        self.drain(ends)
                        rest = BREATH_SECONDS if time.monotonic() >= ends else poll
                        for flow in DRAINS:
                            self.wake_drain(flow)
                        pause = 0.0
                        now = time.monotonic()
                        if now - last_sweep >= min(SWEEP_SECONDS, self._stores.settings.jobs.silent_after_seconds / 4):
                            last_sweep = now
                            self.sweep()
                        if now - last_look >= DEAD_FLOW_RUN_SECONDS:
                            last_look = now
                            self.replace_dead_flow_runs()
                            follow(self._stores.database, self._orchestrator)
                            self._firings.hear(datetime.now(UTC))
                        for _ in listener.notifies(timeout=rest, stop_after=1):
                            pass
            except (StoreUnavailable, psycopg.Error, PrefectAway) as error:
                pause = min(LONGEST_PAUSE_SECONDS, max(1.0, pause * 2))
                log.warning("waiting %.0f s: %s", pause, error)
                self.stopping.wait(pause)

    def drain(self, ends: float = math.inf) -> int:
        """Have the effect of every due event, in order, until a moment of the monotonic clock; gives how many.

        Raises PrefectAway, StoreUnavailable.
        """
        acted = 0
        while not self.stopping.is_set() and time.monotonic() < ends:
            changes = self._stores.database.run(outbox.claim(CHANGES_AT_ONCE, kinds=CHANGES))
            self._act_together(changes)
            claimed = self._stores.database.run(self._claim())
            for row in claimed:
                self._act(row)
            if not changes and not claimed:
                return acted
            acted += len(changes) + len(claimed)
        return acted

    def _act_together(self, rows: Sequence[OutboxRow]) -> None:
        """Have the effect of changes as of one; where that fails, of each by itself."""
        if not rows:
            return
        try:
            for change in merged(cast(ChangeEvent, row.event()) for row in rows):
                self.effect(change)
        except (StoreUnavailable, psycopg.Error):
            raise
        except Exception:  # noqa: BLE001 - whichever it is says so by itself
            for row in rows:
                self._act(row)
        else:
            self._stores.database.run(outbox.done(*(row.id for row in rows)))

    def _claim(self) -> Script[list[OutboxRow]]:
        """The next event; jobs whose flow is paused keep their places."""
        paused = {pause.flow for pause in (yield from pauses.every())}
        return (yield from outbox.claim(1, [kind for kind, flow in FLOWS.items() if flow in paused]))

    def _act(self, row: OutboxRow) -> None:
        try:
            self.effect(row.event())
        except PrefectAway as error:
            self._stores.database.run(outbox.wait_no_longer(row.id, str(error)))
            raise
        except FlowPaused as error:
            self._stores.database.run(_hold(row, error))
            return
        except (StoreUnavailable, psycopg.Error):
            raise
        except Exception as error:
            log.exception("event %d (%s) had no effect", row.id, row.kind)
            self._stores.database.run(outbox.failed(row.id, f"{type(error).__name__}: {error}"))
            return
        self._stores.database.run(outbox.done(row.id))

    def effect(self, event: Event) -> None:
        """The table of effects. Events that no flow reads yet are committed and kept."""
        match event:
            case JobSubmitted():
                self._start_flow_run(event)
            case JobCancelling() | JobCancelled():
                self._cancel_flow_run(event.flow_run_id)
            case ModelsChanged():
                self._stores.database.run(search_queue.add(Kind.MODEL, event.model_ids, event.lane))
                self._stores.database.run(expand(event))
            case ImagesChanged():
                self._stores.database.run(search_queue.add_images(event))
            case CreatorsChanged():
                self._stores.database.run(search_queue.add(Kind.CREATOR, event.numbers, event.lane))
            case JobSucceeded() | JobFailed() | SampleReady() | FollowAdded() | CommentWritten() | CommentEdited():
                self._stores.database.run(expand(event))
            case JobStarted() | ModelVersionPublished() | FollowRemoved() | CommentDeleted():
                return
            case ReactionAdded() | ReactionRemoved():
                return
            case _:
                assert_never(event)

    def _start_flow_run(self, event: JobSubmitted) -> None:
        job = self._stores.database.run(jobs.get(event.job_id))
        if job.state is not JobState.SUBMITTED or job.hand_out != event.hand_out:
            return
        run = self._orchestrator.start(
            FLOWS[job.kind],
            key=f"{job.id}:{job.hand_out}",
            name=f"{job.kind}-{str(job.id)[:8]}-{job.hand_out}",
            parameters={"job_id": str(job.id), "hand_out": job.hand_out},
            tags=[f"job:{job.id}"],
        )
        noted = self._stores.database.run(jobs.note_flow_run(job.id, job.hand_out, run.id))
        log.info("job %s hand-out %d: flow run %s", job.id, job.hand_out, run.id)
        if not noted:
            current = self._stores.database.run(jobs.get(job.id))
            if current.state is JobState.CANCELLED:
                self._cancel_flow_run(run.id)

    def wake_drain(self, flow: str) -> UUID | None:
        """Start a run of a flow in DRAINS when something is due, nobody drains and it is not paused; gives the run.

        The key has a number that the run itself raises when it begins, so asking again starts no second one.
        """
        number = self._stores.database.run(DRAINS[flow](flow))
        if number is None:
            return None
        key = f"{flow}:{number}"
        try:
            run = self._orchestrator.start(flow, key=key, name=key)
        except FlowPaused as error:
            self._stores.database.run(pauses.add(error.flow, Switch.PREFECT))
            return None
        if run.state is not None and run.state.is_final():
            # It died before it began, and Prefect gives a dead run back for its key.
            self._stores.database.run(search_queue.next_wakeup(flow))
        return run.id

    def _cancel_flow_run(self, flow_run_id: UUID | None) -> None:
        """Ask Prefect to stop a flow run; the flow also reads its job's row, so a miss only takes a little longer."""
        if flow_run_id is None:
            return
        try:
            self._orchestrator.cancel(flow_run_id)
        except ObjectNotFound:
            log.info("flow run %s is gone from Prefect already", flow_run_id)

    def sweep(self) -> list[Job]:
        """Publish what was scheduled for a time that has come, and hand silent jobs out again; gives those it moved."""
        published = self._stores.database.run(models.publish_due())
        if published:
            log.info("%d scheduled models and versions are published", published)
        settings = self._stores.settings.jobs
        moved = self._stores.database.run(
            jobs.sweep_silent(
                silent_after_seconds=settings.silent_after_seconds, max_silent_hand_outs=settings.max_silent_hand_outs
            )
        )
        for job in moved:
            log.warning("job %s was silent: now %s, hand-out %d", job.id, job.state, job.hand_out)
        return moved

    def replace_dead_flow_runs(self) -> list[Job]:
        """Hand jobs out again whose flow run ended in Prefect before it claimed them; gives those it moved."""
        replaced: list[Job] = []
        for job in self._stores.database.run(jobs.waiting_with_flow_run(START_SECONDS)):
            if job.flow_run_id is not None and self._orchestrator.is_dead(job.flow_run_id):
                try:
                    most = self._stores.settings.jobs.max_silent_hand_outs
                    replaced.append(self._stores.database.run(jobs.replace_dead_flow_run(job, most)))
                except JobLost:
                    continue
        for job in replaced:
            log.warning("job %s lost its flow run before it began: hand-out %d", job.id, job.hand_out)
        return replaced

    def sound_alarms(self, now: datetime) -> list[str]:
        """Raise the alarm of every flow that is late at `now` and clear what is over; gives the new ones."""
        return alarms.sound(self._stores.database, now, self._stores.settings.metrics.late_after_seconds)


def _hold(row: OutboxRow, error: FlowPaused) -> Script[None]:
    """The flow was found paused in Prefect: the event keeps its place, and waits from now on."""
    yield from pauses.add(error.flow, Switch.PREFECT)
    yield from outbox.wait_no_longer(row.id, str(error))


def main() -> None:
    """Run a relay until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with open_stores(load_settings()) as stores, get_client(sync_client=True) as prefect:
        relay = Relay(stores, prefect)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            relay.stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        log.info("relay is up")
        relay.run()


if __name__ == "__main__":
    main()
