"""Freshness is a pure function of what was finished, what waits, and a time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from storage.records.metrics.freshness import (
    SHOWN_DAYS,
    FlowRows,
    PartitionState,
    Pause,
    Switch,
    alerts_due,
    judge,
    missing,
    unfinished,
)

NOW = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
LATE = timedelta(minutes=15)
FRESH, DUE, TOO_LATE = PartitionState.FRESH, PartitionState.DUE, PartitionState.LATE


def a_flow(
    finished: dict[date, datetime] | None = None,
    started: datetime = NOW - timedelta(days=2),
    oldest: datetime | None = None,
) -> FlowRows:
    return FlowRows(
        flow="f", started_at=started, finished=finished or {}, waiting=0 if oldest is None else 3, oldest=oldest
    )


def day(ago: int) -> date:
    return (NOW - timedelta(days=ago)).date()


def states(rows: FlowRows, now: datetime = NOW) -> list[PartitionState]:
    return [partition.state for partition in judge(rows, now, LATE).partitions]


def test_a_flow_that_ran_just_now_and_after_each_midnight_is_fresh() -> None:
    midnight = datetime(2026, 6, 10, 0, 1, tzinfo=UTC)
    rows = a_flow({day(0): NOW - timedelta(minutes=5), day(1): midnight, day(2): midnight - timedelta(days=1)})
    assert states(rows) == [FRESH, FRESH, FRESH]
    assert judge(rows, NOW, LATE).state is FRESH
    assert alerts_due([judge(rows, NOW, LATE)]) == {}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW, [DUE]),
        (NOW + timedelta(minutes=15), [DUE]),
        (NOW + timedelta(minutes=16), [TOO_LATE]),
        (NOW + timedelta(hours=12, minutes=10), [TOO_LATE, DUE]),
        (NOW + timedelta(hours=24), [TOO_LATE, TOO_LATE]),
    ],
)
def test_a_flow_that_never_ran_is_late_after_a_while(now: datetime, expected: list[PartitionState]) -> None:
    assert states(a_flow(started=NOW), now)[: len(expected)] == expected


def test_midnight_makes_a_silent_flow_no_better() -> None:
    evening, midnight = datetime(2026, 6, 10, 23, 0, tzinfo=UTC), datetime(2026, 6, 11, tzinfo=UTC)
    for last, expected in ((evening, TOO_LATE), (midnight - timedelta(minutes=5), DUE)):
        rows = a_flow({day(0): last}, started=NOW)
        assert judge(rows, midnight + timedelta(minutes=5), LATE).state is expected


def test_a_day_finished_before_its_end_is_not_finished() -> None:
    rows = a_flow({day(0): NOW, day(1): datetime(2026, 6, 9, 23, 55, tzinfo=UTC), day(2): NOW})
    assert states(rows) == [FRESH, TOO_LATE, FRESH]
    assert unfinished(rows, NOW.date()) == [day(1)]


def test_what_waits_too_long_is_late_also_when_every_day_is_finished() -> None:
    finished = {day(0): NOW, day(1): NOW, day(2): NOW}
    assert judge(a_flow(finished, oldest=NOW - LATE), NOW, LATE).state is FRESH
    late = judge(a_flow(finished, oldest=NOW - LATE - timedelta(seconds=1)), NOW, LATE)
    assert (late.state, late.oldest_seconds) == (TOO_LATE, 901)
    assert "3 batches wait, the oldest for 901 s" in alerts_due([late])["late f"]


def test_an_alarm_names_the_days() -> None:
    late = judge(a_flow(), NOW, LATE)
    assert "3 of its days are not finished in time (2026-06-10, 2026-06-09, 2026-06-08)" in alerts_due([late])["late f"]


def test_a_paused_flow_is_as_late_as_ever_and_its_alarm_says_that_it_is_paused() -> None:
    paused = msgspec.structs.replace(a_flow(), paused_at=NOW - timedelta(days=1))
    late = judge(paused, NOW, LATE)
    assert (late.state, late.paused_at) == (TOO_LATE, NOW - timedelta(days=1))
    pauses = [Pause(flow=name, paused_in=Switch.PREFECT, paused_at=NOW) for name in ("f", "g")]
    said = alerts_due([late], pauses)
    assert set(said) == {"late f", "paused g"}
    assert said["late f"].endswith("It is paused since 2026-06-09 12:00 UTC; it goes on with: darkroom resume f")


def test_a_clock_that_jumps_back_makes_nothing_late() -> None:
    rows = a_flow({day(0): NOW + timedelta(days=1)}, started=NOW, oldest=NOW + timedelta(hours=1))
    assert (judge(rows, NOW, LATE).state, judge(rows, NOW, LATE).oldest_seconds) == (FRESH, 0)
    assert states(rows, NOW - timedelta(days=1)) == []


def test_only_the_last_days_are_shown() -> None:
    assert len(states(a_flow(started=NOW - timedelta(days=100)))) == SHOWN_DAYS


def test_a_flow_that_works_ahead_is_due_before_a_day_begins_and_late_when_it_has() -> None:
    rows = FlowRows(flow="f", started_at=NOW - timedelta(days=1), finished={day(0): NOW}, ahead=timedelta(hours=2))
    ten, midnight = NOW.replace(hour=22), NOW.replace(hour=0) + timedelta(days=1)
    for now, expected in (
        (NOW, [FRESH]),
        (ten - timedelta(seconds=1), [FRESH]),
        (ten, [DUE, FRESH]),
        (midnight, [DUE, FRESH]),
        (midnight + timedelta(seconds=1), [TOO_LATE, FRESH]),
        (ten + timedelta(days=1), [DUE, TOO_LATE, FRESH]),
    ):
        assert states(rows, now) == expected
        assert len(missing(rows, now)) == len(expected) - 1
    assert missing(rows, ten + timedelta(days=1)) == [day(-1), day(-2)]
    assert judge(rows, midnight, LATE).partitions[0].expected_by == midnight
    assert len(missing(rows, NOW + timedelta(days=100))) == SHOWN_DAYS


def test_of_a_flow_that_works_ahead_no_day_is_expected_that_had_begun_when_it_was_first_watched() -> None:
    for started in (NOW, NOW.replace(hour=23)):
        rows = FlowRows(flow="f", started_at=started, finished={}, ahead=timedelta(hours=2))
        assert judge(rows, started, LATE).state is FRESH
        assert states(rows, started) == []
