"""The duty effects: committed events to effects, which every other duty waits for.

It claims one due event at a time in order (changes of the catalogue many at a time), does its effect under a key that
makes repeating it harmless, and acknowledges the row. A crash anywhere only repeats. While Prefect or a store is
unavailable, a disk is full or a row is locked for too long, events keep their place and nothing is counted against
them. One that alone is refused while others are not counts as failed (`refusals`).

The events of one subject have their effects in order: while one is tried again, later ones of its subject wait. One
that has failed ten times is given up with an alert, and later ones of its subject go on: effects read the rows as
they are now, so a job that was cancelled meanwhile is cancelled, and an event that is replayed later does no harm.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, assert_never, cast
from uuid import UUID

import psycopg
from prefect.exceptions import ObjectNotFound

from flows.notifications.event_notifications import expand
from flows.relay.drains import DRAINS, own_run
from flows.relay.duty import Duty
from flows.relay.refusals import PASSING, RelayRefusals
from flows.runs.flow_names import JOB_FLOWS
from flows.runs.orchestrator import DeploymentMissing, FlowPaused, Orchestrator
from storage.errors import DarkroomError, StoreFailure
from storage.logs import log_context
from storage.postgres.connection import Query, Script
from storage.postgres.events import outbox
from storage.postgres.events.outbox import MAX_FAILURES
from storage.postgres.jobs import jobs
from storage.postgres.search import search_queue
from storage.postgres.upkeep import flow_deployments, pauses
from storage.records.events.events import (
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
from storage.records.jobs.jobs import Job, JobState
from storage.records.metrics.freshness import Switch
from storage.records.search.search import Kind
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")

NEED_PREFECT = tuple(str(one.__struct_config__.tag) for one in (JobSubmitted, JobCancelling, JobCancelled))
"""Events whose effect is Prefect's work: others go on while it is unavailable."""
CHANGES_AT_ONCE = 500
"""Changes of the catalogue that have their effect together: those of an import come by the thousand."""
ITERATION_SECONDS = 1.0
"""An iteration ends after this, even while events keep coming, so that the duty's success is noted now and then."""


def duty(stores: Stores, orchestrator: Orchestrator, stopping: threading.Event, acted: Callable[[], None]) -> Duty:
    """Has the effects of every event but those of the duty flow-runs, until `stopping`; see Effects for `acted`."""
    others = Effects(stores, orchestrator, stopping, acted, without=NEED_PREFECT)
    return Duty("effects", stores.settings.jobs.relay_poll_seconds, others.iterate, abandon=others.release)


class Effects:
    """Has the effects of events. Several may do so: each event is claimed by one of them."""

    def __init__(
        self,
        stores: Stores,
        orchestrator: Orchestrator,
        stopping: threading.Event | None = None,
        acted: Callable[[], None] = lambda: None,
        *,
        only: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        """`acted` is called when events have had their effect: others may have something to do now.

        `only` and `without` name kinds of events, for several that share the work.
        """
        self._stores, self._orchestrator = stores, orchestrator
        self._stopping, self._acted = stopping or threading.Event(), acted
        self._claimed: Sequence[OutboxRow] = ()
        self._only, self._without = only, without
        self._refusals = RelayRefusals(stores.database)

    def iterate(self) -> bool:
        """Have the effects of what is due; returns whether there is more to do at once."""
        ends = time.monotonic() + ITERATION_SECONDS
        with self._refusals.iteration():
            # A claim counts a failure before the effect is tried, so an event that kills its relay is counted, too.
            for event_id in self._stores.database.run(outbox.give_up_deadly()):
                log.error(
                    "event %d is given up: the relay died each time it tried it. When its cause is fixed: darkroom "
                    "events replay %d",
                    *(event_id, event_id),
                )
            try:
                self._drain(ends)
            finally:
                self._claimed = ()
        return time.monotonic() >= ends

    def release(self) -> None:
        """Release what is claimed at this moment, for another relay: an ordinary stop is no failure of an event."""
        try:
            events = [row.id for row in self._claimed]
            self._stores.database.run(outbox.wait_no_longer("the relay stopped in the middle", *events))
        except (StoreFailure, psycopg.Error) as error:
            log.warning("claimed events were not released: %s: %s", type(error).__name__, error)

    def drain(self) -> int:
        """Have the effect of every due event, in order; returns how many. Raises PrefectUnavailable, StoreFailure."""
        with self._refusals.iteration():
            return self._drain(math.inf)

    def _drain(self, ends: float) -> int:
        acted = 0
        while not self._stopping.is_set() and time.monotonic() < ends:
            # Changes of the catalogue first and many at a time, then one other event, and again: neither waits for all
            # of the other.
            self._claimed = changes = self._claim_changes()
            self._act_on_batch(changes)
            self._claimed = claimed = self._stores.database.run(self._claim())
            for row in claimed:
                if not self._act(row):  # however long that took, another one is tried in this iteration
                    ends = max(ends, time.monotonic() + ITERATION_SECONDS)
            if not changes and not claimed:
                return acted
            acted += len(changes) + len(claimed)
            self._acted()
        return acted

    def _claim_changes(self) -> list[OutboxRow]:
        if self._only is not None:
            return []
        return self._stores.database.run(outbox.claim(CHANGES_AT_ONCE, kinds=CHANGES, passed=self._refusals.passed))

    def _act_on_batch(self, rows: Sequence[OutboxRow]) -> None:
        """Have the effect of changes as of one; where that fails, of each by itself."""
        if not rows:
            return
        ids = [row.id for row in rows]
        with self._returned_to_queue(rows):
            try:
                for change in merged(cast(ChangeEvent, row.event()) for row in rows):
                    self.effect(change)
                # After the effects: a relay that dies before repeats them, which is harmless by their keys.
                self._stores.database.run(outbox.done(*ids))
                self._refusals.forget(*ids)
                return
            except PASSING as error:
                if not self._refusals.refused(ids, error):
                    raise
            except Exception:  # noqa: BLE001, S110 - whichever it is says so by itself
                pass
        for place, row in enumerate(rows):
            # Those behind it: its own failure is `_act`'s to judge.
            with self._returned_to_queue(rows[place + 1 :]):
                self._act(row)

    @contextmanager
    def _returned_to_queue(self, rows: Sequence[OutboxRow]) -> Generator[None]:
        """What passes by waiting is not the fault of these events: they keep their place, and no failure is counted."""
        try:
            yield
        except PASSING as error:
            self._refusals.keep_places([row.id for row in rows], error)
            raise

    def _claim(self) -> Script[list[OutboxRow]]:
        """The next event; jobs whose flow is paused or not deployed keep their places."""
        stopped = {pause.flow for pause in (yield from pauses.every())}
        stopped.update((yield from flow_deployments.absent()))
        held = [kind for kind, flow in JOB_FLOWS.items() if flow in stopped]
        return (yield from outbox.claim(1, held, self._only, self._without, self._refusals.passed))

    def _act(self, row: OutboxRow) -> bool:
        """Have the effect of one event; returns whether it was not passed over."""
        with self._returned_to_queue([row]):
            try:
                self._try(row)
            except PASSING as error:
                if not self._refusals.refused([row.id], error):
                    raise
                self._refusals.pass_over(row.id, error)
                return False
        return True

    def _try(self, row: OutboxRow) -> None:
        try:
            self.effect(row.event())
        except PASSING:
            raise
        except FlowPaused as error:
            self._stores.database.run(_hold(row, error, pauses.add(error.flow, Switch.PREFECT)))
        except DeploymentMissing as error:
            log.error("%s", error)
            self._stores.database.run(_hold(row, error, flow_deployments.miss(error.flow)))
        except Exception as error:
            log.exception("event %d (%s) had no effect", row.id, row.kind)
            name = error.code if isinstance(error, DarkroomError) else type(error).__name__
            if self._stores.database.run(outbox.failed(row.id, f"{name}: {error}")):
                log.error(
                    "event %d (%s of %s) is given up after %d tries. When its cause is fixed: darkroom events "
                    "replay %d",
                    *(row.id, row.kind, row.subject, MAX_FAILURES, row.id),
                )
        else:
            self._stores.database.run(outbox.done(row.id))
            self._refusals.forget(row.id)

    def effect(self, event: Event) -> None:
        """The table of effects. Events that no flow reads yet are committed and kept."""
        match event:
            case JobSubmitted():
                self._start_flow_run(event)
            case JobCancelling() | JobCancelled():
                self._cancel_flow_run(own_run(self._stores.database, event))
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
        # As it is now: the event may be replayed after days, and the job cancelled or at its next attempt.
        job = self._stores.database.run(jobs.get(event.job_id))
        waits = job.state is JobState.SUBMITTED and job.attempt == event.attempt
        # A run that carries out many is started by its own duty, which is woken behind this.
        if not waits or JOB_FLOWS[job.kind] in DRAINS:
            return
        with log_context(request_id=job.request_id):
            self._start_flow_run_of(job)

    def _start_flow_run_of(self, job: Job) -> None:
        run = self._orchestrator.start(
            JOB_FLOWS[job.kind],
            # A new attempt needs a new key: for the old one Prefect returns the old run, dead or not.
            key=f"{job.id}:{job.attempt}",
            name=f"{job.kind}-{str(job.id)[:8]}-{job.attempt}",
            parameters={"job_id": str(job.id), "attempt": job.attempt},
            tags=[f"job:{job.id}", *([f"request:{job.request_id}"] if job.request_id else [])],
        )
        self._refusals.prefect_worked()
        noted = self._stores.database.run(jobs.note_flow_run(job.id, job.attempt, run.id))
        log.info("job %s attempt %d: flow run %s", job.id, job.attempt, run.id)
        # It was cancelled between the look and the start, when there was no flow run to cancel yet.
        if not noted and self._stores.database.run(jobs.get(job.id)).state is JobState.CANCELLED:
            self._cancel_flow_run(run.id)

    def _cancel_flow_run(self, flow_run_id: UUID | None) -> None:
        """Ask Prefect to stop a flow run; the flow also reads its job's row, so a miss only takes a little longer."""
        if flow_run_id is None:
            return
        try:
            self._orchestrator.cancel(flow_run_id)
        except ObjectNotFound:
            log.info("flow run %s is gone from Prefect already", flow_run_id)
        else:
            self._refusals.prefect_worked()


def _hold(row: OutboxRow, error: FlowPaused | DeploymentMissing, because: Query[Any] | Script[Any]) -> Script[None]:
    """The event's flow cannot be started: the event keeps its place, and waits from now on."""
    yield from because
    yield from outbox.wait_no_longer(str(error), row.id)
