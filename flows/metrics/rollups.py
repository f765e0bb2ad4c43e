"""@flow roll-up-metrics: counted acts become sums by hour, day and period, and the catalogue's counts.

Each day is a partition and a transaction of its own. A run that dies leaves only whole days behind it, and the next one
takes what it left, also of days on which nobody ran.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial

import msgspec
from prefect import flow
from prefect.runtime import flow_run

from flows.runs.artifacts import leave_table
from flows.runs.crash_points import reach
from flows.runs.light_tracking import note
from flows.runs.retries import run_with_retries
from flows.runs.run_logs import run_logger
from storage.postgres.connection import Script
from storage.postgres.metrics import activity, freshness, rollups
from storage.records.metrics.freshness import unfinished
from storage.records.metrics.rollups import ROLL_UP, RolledUp
from storage.settings import load_settings
from storage.stores import Stores, open_stores

_log = partial(run_logger, "darkroom.metrics")


@flow(name=ROLL_UP)
def roll_up_metrics(day: date | None = None) -> int:
    """Roll up every day that waits; returns how many activities.

    Args:
        day: Rebuild this day from all of its activity instead.
    """
    with open_stores(load_settings()) as stores, stores.database.session_lock(ROLL_UP) as held:
        if not held:
            _log().info("another run is rolling up")
            return 0
        now = datetime.now(UTC)
        done = roll_up(stores, now) if day is None else [build(stores, day, now), *settle(stores, now)]
        metrics = metrics_of(stores, done, now)
        # Every run has a tracking run of its own: its name is that of the flow run, or its time.
        note(stores.settings, ROLL_UP, str(flow_run.name or now), metrics)
    leave_table(ROLL_UP, [_row(part) for part in done])
    _log().info("%d activities of %d days in %.1f s", metrics["activities"], len(done), metrics["seconds"])
    return int(metrics["activities"])


def metrics_of(stores: Stores, done: Sequence[RolledUp], now: datetime) -> dict[str, float]:
    """What a run did and how far behind the flow still is, as metrics for MLflow."""
    late_after = stores.settings.metrics.late_after_seconds
    [left] = [flow for flow in stores.database.run(freshness.report(now, late_after)) if flow.flow == ROLL_UP]
    activities, seconds = sum(part.activities for part in done), sum(part.seconds for part in done)
    return {
        "days": len(done),
        "batches": sum(part.batches for part in done),
        "activities": activities,
        "cells": sum(part.hour_cells + part.day_cells for part in done),
        "counts_written": sum(part.stats for part in done),
        "seconds": seconds,
        "activities_per_second": activities / seconds if seconds else 0.0,
        "batches_left": left.waiting,
        "lag_seconds": left.oldest_seconds,
    }


def roll_up(stores: Stores, now: datetime) -> list[RolledUp]:
    """Everything that waits at `now`, oldest day first, and the days that were missed."""
    run = partial(run_with_retries, stores)
    missed = unfinished(run(partial(freshness.rows_of, ROLL_UP)), now.date())
    done: list[RolledUp] = []
    # Today is among them even when nothing waits: each run says in the partitions up to when it has counted.
    for day in sorted({now.date(), *missed, *run(rollups.waiting_days)}):
        done.append(_timed(stores, partial(rollups.roll_up_day, day, now)))
        reach(stores.settings, "day-rolled-up")
    done += settle(stores, now)
    # The last, so that a failure here takes nothing from the sums: without tomorrow's partition the day's first act
    # makes it.
    run(activity.make_days_ahead)
    return done


def settle(stores: Stores, now: datetime) -> list[RolledUp]:
    """Rebuild totals and the catalogue's counts if whole days were built since; returns what that did, if
    anything."""
    if not run_with_retries(stores, rollups.state).stale:
        return []
    return [_timed(stores, partial(rollups.settle_totals, now))]


def build(stores: Stores, day: date, now: datetime) -> RolledUp:
    """Build a whole day from its activity; totals are to be settled after it. Raises Refused where that was dropped."""
    return _timed(stores, partial(rollups.build_day, day, now))


def _timed(stores: Stores, script: Callable[[], Script[RolledUp]]) -> RolledUp:
    began = time.perf_counter()
    done = run_with_retries(stores, script)
    return msgspec.structs.replace(done, seconds=round(time.perf_counter() - began, 3))


def _row(part: RolledUp) -> dict[str, str]:
    return {name: str(value) for name, value in msgspec.to_builtins(part).items()}
