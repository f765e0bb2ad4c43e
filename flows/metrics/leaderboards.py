"""@flow rank-leaderboards: tomorrow's boards from the sums of counted acts, ready before midnight UTC.

A day is a partition. Each of its boards is prepared beside what is read, in a transaction of its own, and one more
publishes them all. A run that dies leaves what was read before; the next one makes the day, also days that were missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import msgspec
from prefect import flow
from prefect.runtime import flow_run

from flows.runs.artifacts import leave_table
from flows.runs.crash_points import reach
from flows.runs.light_tracking import note
from flows.runs.retries import run_with_retries
from flows.runs.run_logs import run_logger
from flows.upkeep.sensor import DayUnfinished, wait_for_day
from storage.errors import Refused
from storage.postgres.connection import Query, Script
from storage.postgres.metrics import freshness, leaderboards
from storage.records.metrics.freshness import missing
from storage.records.metrics.leaderboards import BOARDS, RANK, Prepared, Ranked, counted_until
from storage.records.metrics.rollups import ROLL_UP
from storage.settings import load_settings
from storage.stores import Stores, open_stores

_log = partial(run_logger, "darkroom.metrics")


WAIT_SECONDS = 120.0
"""A run in the evening may begin a moment before the roll-up that it needs is done."""


@flow(name=RANK)
def rank_leaderboards(day: date | None = None) -> int:
    """Make the boards of every day that is due; returns of how many days.

    Args:
        day: Rebuild this day's boards instead.
    """
    with open_stores(load_settings()) as stores, stores.database.session_lock(RANK) as held:
        if not held:
            _log().info("another run is making boards")
            return 0
        now = datetime.now(UTC)
        done = rank_due(stores, now, wait_seconds=WAIT_SECONDS) if day is None else [rank_day(stores, day, now)]
        metrics = metrics_of(stores, done, now)
        note(stores.settings, RANK, str(flow_run.name or now), metrics)
    leave_table(RANK, [msgspec.to_builtins(ranked) for ranked in done] or [metrics])
    _log().info("boards of %d days in %.1f s", len(done), metrics["seconds"])
    return len(done)


def metrics_of(stores: Stores, done: Sequence[Ranked], now: datetime) -> dict[str, float]:
    """What a run did and how far behind the flow still is, as metrics for MLflow."""
    left = missing(stores.database.run(freshness.rows_of(RANK)), now)
    places, seconds = sum(ranked.places for ranked in done), sum(ranked.seconds for ranked in done)
    return {
        "days": len(done),
        "boards": sum(ranked.boards for ranked in done),
        "places": places,
        "seconds": seconds,
        "places_per_second": places / seconds if seconds else 0.0,
        "days_left": len(left),
        "lag_seconds": (now - counted_until(left[0])).total_seconds() if left else 0.0,
    }


def rank_due(stores: Stores, now: datetime, *, wait_seconds: float = 0.0) -> list[Ranked]:
    """Make the boards of each day whose time has come, oldest first. A day that has to wait stops no other one.

    wait_seconds: how long the roll-up that the newest boards score is waited for.
    """
    done: list[Ranked] = []
    due = missing(stores.database.run(freshness.rows_of(RANK)), now)
    if due and wait_seconds:
        _wait_for_sums(stores, due[-1], wait_seconds)
    for day in due:
        try:
            done.append(rank_day(stores, day, now))
        except Refused as error:
            _log().warning("%s", error)
    return done


def _wait_for_sums(stores: Stores, day: date, seconds: float) -> None:
    until = counted_until(day)
    try:
        wait_for_day(stores, ROLL_UP, until.date(), as_of=until, limit_seconds=seconds)
    except DayUnfinished as error:
        _log().warning("%s", error)


def rank_day(stores: Stores, day: date, now: datetime, also: Callable[[], Query[Any]] | None = None) -> Ranked:
    """Make a day's boards and publish them together, with what else is `also` true from then on. Raises Refused."""
    began = time.perf_counter()
    prepared: list[Prepared] = []
    for board in BOARDS.values():
        prepared.append(run_with_retries(stores, partial(leaderboards.prepare, board, day)))
        reach(stores.settings, "board-prepared")
    run_with_retries(stores, partial(_publish, day, [board.edition_id for board in prepared], now, also))
    places = sum(board.places for board in prepared)
    return Ranked(day=day, boards=len(prepared), places=places, seconds=round(time.perf_counter() - began, 3))


def _publish(day: date, editions: Sequence[int], now: datetime, also: Callable[[], Query[Any]] | None) -> Script[None]:
    yield from leaderboards.publish(day, editions, now)
    if also is not None:
        yield from also()
