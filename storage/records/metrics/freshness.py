"""Freshness: what each flow should have finished by now, beside what it has. A pure function of rows and a time.

A flow that works by days has a partition for each. Today's is expected again and again; an earlier one is expected once
after its end, and once more when something came late for it. A flow that works `ahead` has a day's partition finished
before the day begins: from that long before it the partition is due, and late when the day has begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

import msgspec

SHOWN_DAYS = 30
"""How many partitions are looked at, today's the last of them."""


class PartitionState(StrEnum):
    """Whether a partition is as it should be: finished, still in time, or late."""

    FRESH = "fresh"
    DUE = "due"
    LATE = "late"


class Switch(StrEnum):
    """Where a flow was paused: with `darkroom pause`, or in Prefect's pages."""

    DARKROOM = "darkroom"
    PREFECT = "prefect"


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that an operator has paused: nobody starts it, and what it would do waits."""

    flow: str
    paused_in: Switch
    paused_at: datetime


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One day of a flow: when it was finished last, and when it is expected to be (again)."""

    day: date
    finished_at: datetime | None
    expected_by: datetime
    state: PartitionState


class FlowFreshness(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's partitions, newest first, and what waits for it: how much, and the age of the oldest in seconds.

    A paused flow is as late as any other that does not run.
    """

    flow: str
    state: PartitionState
    paused_at: datetime | None
    waiting: int
    oldest_seconds: float
    partitions: tuple[Partition, ...]


class FlowRows(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres knows of a flow: since when it is watched, when its days were finished last, what waits.

    ahead: how long before a day begins its partition can be made, for a flow that makes it before.
    """

    flow: str
    started_at: datetime
    paused_at: datetime | None = None
    finished: Mapping[date, datetime]
    waiting: int = 0
    oldest: datetime | None = None
    ahead: timedelta | None = None


def judge(rows: FlowRows, now: datetime, late_after: timedelta) -> FlowFreshness:
    """How fresh a flow is at `now`. It is late when any of its partitions is, or what waits is older than allowed."""
    today = now.astimezone(UTC).date()
    if rows.ahead is None:
        expected = _days(rows.started_at.astimezone(UTC).date(), today)
        partitions = tuple(_partition(rows, day, today, now, late_after) for day in expected)
    else:
        partitions = tuple(_early_partition(rows, day, now) for day in _begun_ahead(rows, rows.ahead, now))
    oldest = max(0.0, (now - rows.oldest).total_seconds()) if rows.oldest else 0.0
    states = [partition.state for partition in partitions]
    late = PartitionState.LATE in states or oldest > late_after.total_seconds()
    due = PartitionState.DUE in states
    state = PartitionState.LATE if late else PartitionState.DUE if due else PartitionState.FRESH
    return FlowFreshness(
        flow=rows.flow,
        state=state,
        paused_at=rows.paused_at,
        waiting=rows.waiting,
        oldest_seconds=oldest,
        partitions=partitions,
    )


def alerts_due(flows: Sequence[FlowFreshness], forgotten: Sequence[Pause] = ()) -> dict[str, str]:
    """What operators are to be alerted of, by the alert's name: one for each flow that is late, or `forgotten` in a
    pause."""
    late = {f"late {flow.flow}": _late_text(flow) for flow in flows if flow.state is PartitionState.LATE}
    paused = {
        f"paused {pause.flow}": f"What {pause.flow} would do waits. {_paused(pause.flow, pause.paused_at)}"
        for pause in forgotten
        if f"late {pause.flow}" not in late
    }
    return late | paused


def unfinished(rows: FlowRows, today: date) -> list[date]:
    """The days before `today` that a flow has not finished after their end, oldest first."""
    first = rows.started_at.astimezone(UTC).date()
    days = [first + timedelta(days=number) for number in range((today - first).days)]
    return [day for day in days if not _was_finished(rows, day)]


def missing(rows: FlowRows, now: datetime) -> list[date]:
    """The days that a flow which works ahead has not finished although it could, oldest first: of the shown ones."""
    days = [] if rows.ahead is None else _begun_ahead(rows, rows.ahead, now)
    return [day for day in reversed(days) if day not in rows.finished]


def _days(first: date, last: date) -> list[date]:
    """At most so many days as are shown, the last one first."""
    return [last - timedelta(days=ago) for ago in range(min(SHOWN_DAYS, (last - first).days + 1))]


def _begun_ahead(rows: FlowRows, ahead: timedelta, now: datetime) -> list[date]:
    """The days whose partition could be made by now, not counting those for which it was too late at the start."""
    first = (rows.started_at.astimezone(UTC) + ahead).date() + timedelta(days=1)
    return _days(first, (now.astimezone(UTC) + ahead).date())


def _early_partition(rows: FlowRows, day: date, now: datetime) -> Partition:
    finished, expected = rows.finished.get(day), _end(day) - timedelta(days=1)
    late = PartitionState.LATE if now > expected else PartitionState.DUE
    state = late if finished is None else PartitionState.FRESH
    return Partition(day=day, finished_at=finished, expected_by=expected, state=state)


def _partition(rows: FlowRows, day: date, today: date, now: datetime, late_after: timedelta) -> Partition:
    finished = rows.finished.get(day)
    if day < today and _was_finished(rows, day):
        return Partition(day=day, finished_at=finished, expected_by=_end(day), state=PartitionState.FRESH)
    # Every run finishes today's again, so it is expected soon after any run: midnight makes no silent flow better.
    since = _end(day) if day < today else max(rows.finished.values(), default=rows.started_at)
    expected = max(rows.started_at, since) + late_after
    in_time = PartitionState.FRESH if day == today and finished else PartitionState.DUE
    state = PartitionState.LATE if now > expected else in_time
    return Partition(day=day, finished_at=finished, expected_by=expected, state=state)


def _was_finished(rows: FlowRows, day: date) -> bool:
    finished = rows.finished.get(day)
    return finished is not None and finished >= _end(day)


def _end(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _late_text(flow: FlowFreshness) -> str:
    late = [partition for partition in flow.partitions if partition.state is PartitionState.LATE]
    parts = [f"{flow.waiting} batches wait, the oldest for {flow.oldest_seconds:.0f} s"] if flow.waiting else []
    if late:
        days = ", ".join(str(partition.day) for partition in late[:5])
        parts.append(f"{len(late)} of its days are not finished in time ({days}{', ...' if len(late) > 5 else ''})")
    why = "Is its schedule on, and a worker of its pool running?"
    if flow.paused_at:
        why = _paused(flow.flow, flow.paused_at)
    return f"{flow.flow}: {'; '.join(parts)}. {why}"


def _paused(flow: str, since: datetime) -> str:
    return f"It is paused since {since:%Y-%m-%d %H:%M} UTC; it goes on with: darkroom resume {flow}"
