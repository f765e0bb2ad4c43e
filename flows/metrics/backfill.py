"""Days of roll-ups made anew from their activity, a few at once; one that broke off goes on where it was."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial

from flows.crash_points import reach
from flows.metrics.rollups import settle
from flows.retries import patiently
from storage.errors import DarkroomError, Refused
from storage.postgres import backfills, rollups
from storage.postgres.connection import Script
from storage.records.rollups import ROLL_UP, RolledUp
from storage.stores import Stores

log = logging.getLogger("darkroom.metrics")


def backfill(stores: Stores, first: date, last: date, *, at_once: int, now: datetime) -> list[RolledUp]:
    """Build the days from `first` to `last` whole, at most `at_once` together, then the totals; gives what was done.

    A day that cannot be built stops no other one. Raises Refused for it in the end, and the same call tries it again.
    """
    patience = stores.settings.jobs.patience_seconds
    wanted = stores.database.run(backfills.begin(ROLL_UP, first, last))

    def work(day: date) -> RolledUp | DarkroomError:
        script = partial(_build, wanted.id, day, now)
        try:
            built = patiently(lambda: stores.database.run(script()), patience_seconds=patience)
        except DarkroomError as error:
            log.error("%s was not built: %s", day, error)
            return error
        log.info("%s: %d activities", day, built.activities)
        reach(stores.settings, "day-backfilled")
        return built

    with ThreadPoolExecutor(at_once, thread_name_prefix="backfill") as pool:
        results = dict(zip(wanted.left, pool.map(work, wanted.left), strict=True))
    done = [result for result in results.values() if isinstance(result, RolledUp)] + settle(stores, now)
    failed = {day: result for day, result in results.items() if isinstance(result, DarkroomError)}
    if failed:
        reasons = "; ".join(dict.fromkeys(str(error) for error in failed.values()))
        raise Refused(f"{len(failed)} of {len(wanted.left)} days were not built: {reasons}")
    stores.database.run(backfills.finish(wanted.id))
    return done


def _build(backfill_id: int, day: date, now: datetime) -> Script[RolledUp]:
    built = yield from rollups.build_day(day, now)
    yield from backfills.finish_day(backfill_id, day)
    return built
