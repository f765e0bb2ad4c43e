"""Which days move when the totals of one day become those of another."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from storage.records.metrics.rollups import WINDOWS, moved_days

DAY = timedelta(days=1)


@pytest.mark.parametrize("gap", [0, 1, 5, 31, 400])
def test_the_days_that_move_are_those_that_a_period_gains_or_loses(gap: int) -> None:
    was = date(2026, 6, 10)
    now = was + DAY * gap
    span = [was + DAY * n for n in range(-800, gap + 800)]
    expected = [
        day
        for day in span
        if any((0 <= (was - day).days < length) != (0 <= (now - day).days < length) for length in WINDOWS.values())
    ]
    assert set(expected) <= set(moved_days(was, now))
    assert moved_days(was, now) == moved_days(now, was)
    assert len(moved_days(was, now)) <= 5 * gap
