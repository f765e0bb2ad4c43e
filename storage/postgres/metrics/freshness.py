"""Freshness: what flows have finished, and what they have not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many
from storage.records.metrics.freshness import SHOWN_DAYS, FlowFreshness, FlowRows, judge
from storage.records.metrics.leaderboards import AHEAD, RANK
from storage.records.metrics.rollups import ROLL_UP

SQL = load_statements(__file__)


class _Watched(msgspec.Struct, frozen=True, kw_only=True):
    flow: str
    started_at: datetime
    paused_at: datetime | None


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
