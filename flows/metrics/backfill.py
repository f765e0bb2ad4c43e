"""Days of a flow rebuilt, a few at once; a backfill that broke off goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar

from flows.metrics.leaderboards import rank_day
from flows.metrics.rollups import settle
from flows.runs.crash_points import reach
from flows.runs.retries import with_retries
from storage.errors import DarkroomError, Refused
from storage.postgres.connection import Query, Script
from storage.postgres.metrics import backfills, rollups
from storage.records.metrics.leaderboards import RANK, Ranked
from storage.records.metrics.rollups import ROLL_UP, RolledUp
from storage.stores import Stores

log = logging.getLogger("darkroom.metrics")

T = TypeVar("T")
Note = Callable[[], Query[Any]]
"""Says that a day is done: to be run with the day's last transaction."""


def backfill(stores: Stores, first: date, last: date, *, at_once: int, now: datetime) -> list[RolledUp]:
    """Build the days from `first` to `last` whole, at most `at_once` together, then the totals; returns what was done.

    A day that cannot be built stops no other one. Raises Refused for it in the end, and the same call tries it again.
    """

    def build(day: date, note: Note) -> RolledUp:
        return stores.database.run(_build(day, now, note))

    return _each_day(stores, ROLL_UP, first, last, build, at_once, after=lambda: settle(stores, now))


def backfill_boards(stores: Stores, first: date, last: date, *, at_once: int, now: datetime) -> list[Ranked]:
    """The same for leaderboards. Raises Refused also while another run makes some."""

    def rank(day: date, note: Note) -> Ranked:
        return rank_day(stores, day, now, note)

    # Roll-ups need none: a day of theirs is one transaction that takes its own lock. A day of boards is several.
    with stores.database.session_lock(RANK) as held:
        if not held:
            raise Refused(f"A run of {RANK} is making boards at this moment. Try again when it has ended.")
        return _each_day(stores, RANK, first, last, rank, at_once)


def _build(day: date, now: datetime, note: Note) -> Script[RolledUp]:
    built = yield from rollups.build_day(day, now)
    yield from note()
    return built


def _each_day(
    stores: Stores,
    flow: str,
    first: date,
    last: date,
    make: Callable[[date, Note], T],
    at_once: int,
    after: Callable[[], list[T]] = list,
) -> list[T]:
    """Make every day that is left, then what comes `after` them all; returns what was done."""
    wanted = stores.database.run(backfills.begin(flow, first, last))

    def work(day: date) -> T | DarkroomError:
        note = partial(backfills.finish_day, wanted.id, day)
        try:
            made = with_retries(stores, lambda: make(day, note))
        except DarkroomError as error:
            log.error("%s of %s was not made: %s", day, flow, error)
            return error
        log.info("%s of %s: %s", day, flow, made)
        reach(stores.settings, "day-backfilled")
        return made

    # Threads suffice: a day is one statement's work in Postgres, and each has a connection of its own.
    with ThreadPoolExecutor(at_once, thread_name_prefix="backfill") as pool:
        results = list(pool.map(work, wanted.left))
    # Totals also after failed days: the days that were built count from now on.
    done = [result for result in results if not isinstance(result, DarkroomError)] + after()
    failed = [result for result in results if isinstance(result, DarkroomError)]
    if failed:
        reasons = "; ".join(dict.fromkeys(str(error) for error in failed))
        raise Refused(f"{len(failed)} of {len(wanted.left)} days were not made: {reasons}")
    stores.database.run(backfills.finish(wanted.id))
    return done
