"""Alarms: what is late by Postgres' own account, and what Prefect's automations have noticed.

Both reach moderators as system messages and the relay's log. The relay reads Prefect's events itself: a flow that an
automation starts would wait for the very worker that is missing, and a webhook would need a secret kept in Prefect.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.schemas.events import ReceivedEvent

from flows.orchestrator import Orchestrator
from storage.postgres import freshness, notifications
from storage.postgres.connection import Database
from storage.records.notifications import SystemNotice

log = logging.getLogger("darkroom.relay")

OURS = "darkroom: "
"""Begins the names of the automations whose firings are alarms."""
RUN, FLOW_RUN = "prefect.resource.id", "prefect.flow-run"
"""For each of which our automations fire, and how such an id begins."""
LOOK_BACK = timedelta(hours=6)
"""How far back firings are read: a relay that was away tells what it missed, and moderators nothing twice."""


def sound(database: Database, now: datetime, late_after_seconds: float) -> list[str]:
    """Raise the alarm of every flow that is late at `now` and clear what is over; gives the new ones.

    It asks Postgres alone: a stopped scheduler cannot report itself.
    """
    changes = database.run(freshness.sound(now, late_after_seconds))
    for name, detail in changes.raised.items():
        log.error("alarm: %s: %s", name, detail)
    for name in changes.cleared:
        log.warning("alarm is over: %s", name)
    return list(changes.raised)


class Firings:
    """What our automations have fired for, as one relay hears it."""

    def __init__(self, database: Database, orchestrator: Orchestrator) -> None:
        self._database, self._orchestrator = database, orchestrator
        self._heard: set[UUID] = set()

    def hear(self, now: datetime) -> list[str]:
        """Tell of new firings, moderators once an hour for each automation and flow; gives what the log was told."""
        firings = self._orchestrator.firings(now - LOOK_BACK)
        new = [firing for firing in firings if firing.id not in self._heard and _name(firing).startswith(OURS)]
        said = [line for firing in new if (line := self._tell(firing))]
        self._heard = {firing.id for firing in firings}
        return said

    def _tell(self, firing: ReceivedEvent) -> str | None:
        """Tell of one firing, unless all is well with its run: it was deleted, as `up` does with what fell due while
        nobody ran, or it has done its work: Prefect also takes a run for silent whose heartbeat came after its end.
        """
        run = self._orchestrator.flow_run(UUID(firing.payload["triggering_labels"][RUN].removeprefix(f"{FLOW_RUN}.")))
        if run is None or run.state is None or run.state.is_completed() or run.state.is_cancelled():
            return None
        flow, what = self._orchestrator.flow_of(run), _name(firing).removeprefix(OURS)
        state = f"{run.state.name} {run.state.message or ''}".strip()
        detail = f"flow run {run.name} of {flow} ({run.id}), now {state}"
        log.error("alarm: %s: %s", what, detail)
        key = f"alarm:{what}:{flow}:{firing.occurred:%Y-%m-%dT%H}"
        notice = SystemNotice(title=f"Alarm: {what}", text=detail, path="/health")
        self._database.run(notifications.tell_moderators(key, notice))
        return f"{what}: {detail}"


def _name(firing: ReceivedEvent) -> str:
    return firing.resource["prefect.resource.name"]
