"""The sensor: a flow waits until another has finished a day.

It holds its worker's place for a bounded time and then says what it waited for. Suspended instead, a flow run would
free the process, but somebody would have to resume it and it would begin again from its top; retried by Prefect, it
would hold the process just as long, asleep. A flow that has a schedule need only end: its next run asks again.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

from storage.errors import DarkroomError
from storage.postgres.metrics import freshness
from storage.postgres.upkeep import pauses
from storage.stores import Stores

LOOK_SECONDS = 30.0
"""Who waits looks this often by itself, should a word be lost with its connection."""


class DayUnfinished(DarkroomError):
    """A flow has not finished a day in the time that somebody waited for it."""

    code = "day_unfinished"


def wait_for_day(
    stores: Stores, flow: str, day: date, *, as_of: datetime | None = None, limit_seconds: float = 120.0
) -> datetime:
    """Wait until `flow` has finished the UTC day `day` as it was `as_of` a time or later; returns when it did last.

    as_of: the end of the day by default. The transaction that finishes the day wakes whoever waits. Raises
    DayUnfinished at the limit, StoreUnavailable.
    """
    wanted = as_of or datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    deadline = time.monotonic() + limit_seconds
    # Listening before the first look, so that a day that is finished in between still wakes this.
    with stores.database.connect() as listener:
        listener.execute("listen flow_partitions")
        while True:
            finished_at = stores.database.run(freshness.finished_at(flow, day))
            if finished_at and finished_at >= wanted:
                return finished_at
            left = deadline - time.monotonic()
            if left <= 0:
                raise DayUnfinished(_unfinished_text(stores, flow, day, finished_at, limit_seconds))
            for _ in listener.notifies(timeout=min(left, LOOK_SECONDS), stop_after=1):
                pass


def _unfinished_text(stores: Stores, flow: str, day: date, finished_at: datetime | None, limit_seconds: float) -> str:
    so_far = f"only as it was at {finished_at:%Y-%m-%d %H:%M} UTC" if finished_at else "not at all"
    paused = stores.database.run(pauses.is_paused(flow))
    what = f"It is paused: darkroom resume {flow}" if paused else "See /api/v1/freshness."
    return f"{flow} has finished {day} {so_far}; {limit_seconds:.0f} s were waited for it. {what}"
