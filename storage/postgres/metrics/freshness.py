"""Freshness: what flows have finished, and the alerts of what they have not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many
from storage.postgres.notifications import notifications
from storage.postgres.upkeep import alerts, last_backup, pauses
from storage.records.metrics.freshness import SHOWN_DAYS, FlowFreshness, FlowRows, alerts_due, judge
from storage.records.metrics.leaderboards import AHEAD, RANK
from storage.records.metrics.rollups import ROLL_UP
from storage.records.notifications.notifications import SystemNotice

SQL = load_statements(__file__)


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that has been raised and not cleared."""

    name: str
    detail: str
    raised_at: datetime


class _Watched(msgspec.Struct, frozen=True, kw_only=True):
    flow: str
    started_at: datetime
    paused_at: datetime | None


class AlertChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that were raised and cleared just now; raised ones with what they say."""

    raised: dict[str, str]
    cleared: list[str]


def finished(flow: str, day: date, at: datetime) -> Query[list[date]]:
    """A flow's partition is finished as of a time, with the caller's transaction."""
    return column(SQL["finished"], {"flow": flow, "day": day, "at": at}, date)


def finished_at(flow: str, day: date) -> Query[datetime | None]:
    """When a flow finished a day last; None when it never has."""
    return Query(SQL["finished_at"], {"flow": flow, "day": day}, lambda rows: rows[0]["finished_at"] if rows else None)


def rows(since: date | None = None) -> Script[list[FlowRows]]:
    """What is known of each watched flow; of its partitions, those from the day `since` on."""
    known: list[FlowRows] = []
    for flow in (yield from many(SQL["flows"], {}, _Watched)):
        parameters = {"flow": flow.flow, "since": since or date.min}
        days = yield from Query(
            SQL["partitions"], parameters, lambda found: {row["day"]: row["finished_at"] for row in found}
        )
        waiting: Mapping[str, Any] = {}
        if flow.flow == ROLL_UP:
            waiting = yield from Query(SQL["waiting"], {}, lambda found: found[0])
        ahead = AHEAD if flow.flow == RANK else None
        switched = {"started_at": flow.started_at, "paused_at": flow.paused_at}
        known.append(FlowRows(flow=flow.flow, **switched, finished=days, ahead=ahead, **waiting))
    return known


def rows_of(flow: str) -> Script[FlowRows]:
    """What is known of one watched flow."""
    [known] = [found for found in (yield from rows()) if found.flow == flow]
    return known


def report(now: datetime, late_after_seconds: float) -> Script[list[FlowFreshness]]:
    """How fresh every watched flow is at `now`."""
    late_after = timedelta(seconds=late_after_seconds)
    known = yield from rows(now.date() - timedelta(days=SHOWN_DAYS))
    return [judge(flow, now, late_after) for flow in known]


def update_alerts(now: datetime, late_after_seconds: float, backup_late_after_days: float = 0) -> Script[AlertChanges]:
    """Raise the alerts that are due at `now`, each once until it is cleared, and clear those that are not any more.

    With 0 days, nobody looks whether backups have stopped.
    Moderators are notified of a new one, as a system message, with the transaction that raises it.
    """
    flows = yield from report(now, late_after_seconds)
    long_ago = now - timedelta(seconds=late_after_seconds)
    due = alerts_due(flows, [pause for pause in (yield from pauses.every()) if pause.paused_at < long_ago])
    due |= yield from alerts.of_the_relay()
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
