"""Alerts of the relay itself: duties that fail, events that were given up, deployments that Prefect has lost."""

from __future__ import annotations

from collections import defaultdict

from storage.postgres.connection import Script
from storage.postgres.events import duties, outbox
from storage.postgres.events.outbox import TroubledEvent
from storage.postgres.upkeep import flow_deployments
from storage.records.events.duties import in_words

NAMED = 5
"""So many events of a kind are named one by one."""


def of_the_relay() -> Script[dict[str, str]]:
    """What is wrong now, by the alert's name."""
    due: dict[str, str] = {}
    failing = [in_words(duty) for duty in (yield from duties.every()) if duty.is_failing]
    if failing:
        due["relay duties fail"] = f"{'; '.join(failing)}. The relay's log says more; the other duties go on."
    by_kind: defaultdict[str, list[TroubledEvent]] = defaultdict(list)
    for event in (yield from outbox.dead_events()):
        by_kind[event.kind].append(event)
    due |= {f"dead events: {kind}": _of_events(events) for kind, events in by_kind.items()}
    missing = yield from flow_deployments.missing()
    if missing:
        since = min(one.missing_since for one in missing)
        due["missing deployments"] = (
            f"Since {since:%Y-%m-%d %H:%M} UTC Prefect has no deployment of {', '.join(one.flow for one in missing)}: "
            "they are not started. `darkroom up` deploys them again by itself; elsewhere: python -m deployments.prepare"
        )
    return due


def _of_events(events: list[TroubledEvent]) -> str:
    ids = ", ".join(f"{event.id} of {event.subject}" for event in events[:NAMED])
    more = f" and {len(events) - NAMED} more" if len(events) > NAMED else ""
    return (
        f"{len(events)} events had no effect after {events[0].failures} tries ({ids}{more}), the first with: "
        f"{events[0].last_error}. Fix that, then: darkroom events replay ID"
    )
