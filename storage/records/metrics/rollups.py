"""Roll-ups: sums of activity by the hour, the day and the standard periods."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec

from storage.records.metrics.activity import Counted, Metric

ROLL_UP = "roll-up-metrics"
"""The flow, its lock, and its rows in `flow_partitions`."""

WINDOWS = {"week": 7, "month": 30, "year": 365}
"""How many UTC days each period holds, the last of them today."""


class RolledUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a roll-up of one day did. `activities` are those of the batches it took, or of the whole day."""

    day: date
    whole: bool = False
    batches: int = 0
    activities: int = 0
    hour_cells: int = 0
    day_cells: int = 0
    stats: int = 0
    seconds: float = 0.0


class RollupState(msgspec.Struct, frozen=True, kw_only=True):
    """The day that totals are of, None before the first; `stale`: they are to be rebuilt."""

    as_of: date | None
    stale: bool


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of one entity's metric, as of a day."""

    day: int = 0
    week: int = 0
    month: int = 0
    year: int = 0
    all_time: int = 0


class EntityTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of an entity, and the day that they are of, None before the first. What has none stands for 0."""

    as_of: date | None
    metrics: dict[Metric, Totals]

    def of(self, metric: Metric) -> Totals:
        """The sums of one metric."""
        return self.metrics.get(metric, Totals())


class CorrectedTotal(msgspec.Struct, frozen=True, kw_only=True):
    """A total that was not the sum of its days: week, month, year, all time as they were (None: none), and are."""

    entity: Counted
    entity_id: int
    metric: Metric
    was: tuple[int | None, ...]
    now: tuple[int, ...]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison with the days corrected: totals, and how many of the catalogue's counts."""

    totals: tuple[CorrectedTotal, ...] = ()
    counts: int = 0


def moved_days(was: date, now: date) -> list[date]:
    """The days that enter or leave a period when totals of the day `was` become those of `now`, before or after it."""
    gap = abs((now - was).days)
    later = max(was, now)
    # A day enters a period as its last one (0), and leaves each period when it is as old as that is long.
    return sorted({later - timedelta(days=back + edge) for back in range(gap) for edge in (0, *WINDOWS.values())})
