"""Alerts: what is due, from flows that are late to duties that fail, and what has been raised and not cleared."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many
from storage.postgres.events import duties, outbox
from storage.postgres.events.outbox import TroubledEvent
from storage.postgres.metrics import freshness
from storage.postgres.notifications import notifications
from storage.postgres.upkeep import flow_deployments, last_backup, pauses
from storage.records.events.duties import in_words
from storage.records.metrics.freshness import alerts_due
from storage.records.notifications.notifications import SystemNotice

SQL = load_statements(__file__)

NAMED = 5
"""So many events of a kind are named one by one."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that has been raised and not cleared."""

    name: str
    detail: str
    raised_at: datetime


class AlertChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that were raised and cleared just now; raised ones with what they say."""

    raised: dict[str, str]
    cleared: list[str]


def update(now: datetime, late_after_seconds: float, backup_late_after_days: float = 0) -> Script[AlertChanges]:
    """Raise the alerts that are due at `now`, each once until it is cleared, and clear those that are not any more.

    With 0 days, nobody looks whether backups have stopped.
    Moderators are notified of a new one, as a system message, with the transaction that raises it.
    """
    flows = yield from freshness.report(now, late_after_seconds)
    long_ago = now - timedelta(seconds=late_after_seconds)
    due = alerts_due(flows, [pause for pause in (yield from pauses.every()) if pause.paused_at < long_ago])
    due |= yield from relay_alerts()
    due |= last_backup.alert_of((yield from last_backup.newest()), now, backup_late_after_days)
    values = {"names": list(due), "details": list(due.values())}
    yield from column(SQL["renew"], values, str)
    names = yield from column(SQL["raise"], values, str)
    for name in names:
        notice = SystemNotice(title=f"Alert: {name}", text=due[name], path="/health")
        # With the time in the key: the same alert, raised again after it was cleared, is news.
        yield from notifications.notify_moderators(f"alert:{name}:{now.isoformat()}", notice)
    cleared = yield from column(SQL["clear"], {"names": list(due)}, str)
    return AlertChanges(raised={name: due[name] for name in names}, cleared=cleared)


def raised() -> Query[list[Alert]]:
    """The alerts that are raised now, the oldest first."""
    return many(SQL["raised"], {}, Alert)


def relay_alerts() -> Script[dict[str, str]]:
    """What is due of the relay: duties that fail, events that were given up, deployments that Prefect has lost."""
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
