"""The duty prefect-alerts: what Prefect's automations have noticed, for moderators and in the relay's log.

The relay reads Prefect's events itself: a flow that an automation starts would wait for the very worker that is
missing, and a webhook would need a secret kept in Prefect. What it reports is so at that moment.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.events import ReceivedEvent
from prefect.client.schemas.objects import FlowRun, State

from flows.relay.duty import LOOK_SECONDS, Duty, once
from flows.runs.orchestrator import Orchestrator
from storage.postgres.connection import Database
from storage.postgres.notifications import notifications
from storage.records.notifications.notifications import SystemNotice
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")

OURS = "darkroom: "
"""Begins the names of the automations whose firings are alerts."""
RUN, FLOW_RUN = "prefect.resource.id", "prefect.flow-run"
"""For each of which our automations fire, and how such an id begins."""
SILENT, STAY_LATE, FAIL = "silent flow runs are crashed", "flow runs stay late", "flow runs fail"
"""How their names go on: each has its own truth below."""
CRASHED_BY_US = "No heartbeat for"
"""Begins the message of a run that the automation SILENT has marked as crashed."""
UNDECIDED = timedelta(minutes=2)
"""So long a firing may be ahead of what it has done, or of the state it was for."""
LOOK_BACK = timedelta(hours=6)
"""How far back firings are read: a relay that was unavailable reports what it missed, and nothing twice."""


def duty(stores: Stores, orchestrator: Orchestrator) -> Duty:
    """Reads the firings of our automations."""
    firings = Firings(stores.database, orchestrator)
    return Duty("prefect-alerts", LOOK_SECONDS, once(lambda: firings.read_new(datetime.now(UTC))))


class Firings:
    """What our automations have fired for, as one relay reads it."""

    def __init__(self, database: Database, orchestrator: Orchestrator) -> None:
        self._database, self._orchestrator = database, orchestrator
        self._read: set[UUID] = set()

    def read_new(self, now: datetime) -> list[str]:
        """Report new firings, to moderators once an hour for each automation and flow; returns the lines of the log."""
        firings = self._orchestrator.firings(now - LOOK_BACK)
        lines: list[str] = []
        for firing in firings:
            if firing.id not in self._read and _name(firing).startswith(OURS):
                run = self._run_of(firing)
                state = run.state if run else None
                wrong = _is_wrong(_name(firing).removeprefix(OURS), state, now - firing.occurred)
                # Not noted as read: it is judged again at the next look, until its state is final or it is old.
                if wrong is None:
                    continue
                if wrong and run and state:
                    lines.append(self._report(firing, run, state))
            self._read.add(firing.id)
        # What is not read any more needs no memory.
        self._read &= {firing.id for firing in firings}
        return lines

    def _run_of(self, firing: ReceivedEvent) -> FlowRun | None:
        return self._orchestrator.flow_run(UUID(firing.payload["triggering_labels"][RUN].removeprefix(f"{FLOW_RUN}.")))

    def _report(self, firing: ReceivedEvent, run: FlowRun, state: State[Any]) -> str:
        flow, what = self._orchestrator.flow_of(run), _name(firing).removeprefix(OURS)
        lines = f"now {state.name} {state.message or ''}".strip()
        detail = f"flow run {run.name} of {flow} ({run.id}), {lines}"
        log.error("alert: %s: %s", what, detail)
        # The hour of the firing, not of this look: a relay that starts again has read nothing yet and notifies nobody
        # twice.
        key = f"alert:{what}:{flow}:{firing.occurred:%Y-%m-%dT%H}"
        notice = SystemNotice(title=f"Alert: {what}", text=detail, path="/health")
        self._database.run(notifications.notify_moderators(key, notice))
        return f"{what}: {detail}"


def _is_wrong(what: str, state: State[Any] | None, since: timedelta) -> bool | None:
    """Whether what an automation fired for is so, by the state of its run now; None while that is not known yet.

    A firing alone proves nothing. Prefect takes a run for silent whose last heartbeat came after its end: events come
    through a queue of their own, and the one that reports the end disarms no trigger that a later one has armed. A run
    may also have begun, been retried, or been deleted (as `up` does with what fell due while nobody ran) meanwhile.
    """
    if state is None:
        return False
    if what.startswith(STAY_LATE):
        return state.is_scheduled() and state.name == "Late"
    if not what.startswith(SILENT):
        return state.is_failed() or state.is_crashed()
    # PrefectHQ/prefect#18653 and #21932: runs that had ended well were taken for silent.
    if state.is_crashed():
        return (state.message or "").startswith(CRASHED_BY_US)
    return None if not state.is_final() and since < UNDECIDED else False


def _name(firing: ReceivedEvent) -> str:
    return firing.resource["prefect.resource.name"]
