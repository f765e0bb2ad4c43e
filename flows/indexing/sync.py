"""@flow sync-search-index: what changed in the rows becomes what searches find.

It drains the queue in three lanes (visibility, edits, counts), reading each row as it is now. One drains at a time; the
relay starts it when rows are due and nobody drains.
"""

from __future__ import annotations

import time
from functools import partial

from prefect import flow

from flows.indexing.queue_drain import drain
from flows.runs import draining_flows
from flows.runs.flow_names import SYNC
from flows.runs.run_logs import run_logger
from storage.postgres.search import search_queue
from storage.stores import Stores

_log = partial(run_logger, "darkroom.indexing")

NOTE_SECONDS = 60.0
"""A drain that goes on and on adds its metrics to MLflow this often."""


@flow(name=SYNC)
def sync_search_index() -> int:
    """Write what changed to the search index until nothing has for a while; returns how many ids were written."""
    with draining_flows.sole_drain(SYNC) as stores:
        if stores is None:
            return 0
        written = drain_until_idle(stores, draining_flows.IDLE_SECONDS)
        lag = stores.database.run(search_queue.lag())
    _log().info("%d written, %d waiting, %d refused", written, lag.waiting, lag.dead_letters)
    return written


def drain_until_idle(stores: Stores, idle_seconds: float) -> int:
    """Drain again whenever somebody says that rows wait, until nobody has for `idle_seconds`."""
    metrics = DrainMetrics(stores)
    total = draining_flows.drain_until_idle(
        stores,
        SYNC,
        "search_queue",
        metrics.drain,
        lambda: stores.database.run(search_queue.next_due()),
        idle_seconds,
    )
    metrics.note()
    return total


class DrainMetrics:
    """What drains have done since their last point in MLflow.

    A point a minute at most, and none for a drain that found nothing.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._begin()

    def _begin(self) -> None:
        self._work, self._lag = draining_flows.Work(), 0.0
        self._since = time.monotonic()

    def drain(self) -> int:
        """Drain what is due, if anything is; returns how many ids were written."""
        due = self._stores.database.run(search_queue.next_due())
        # Asked first, since a woken drain may find nothing due, and the lag below is a count over the whole queue.
        written = self._drain() if due is not None and due <= 0 else 0
        if time.monotonic() - self._since >= NOTE_SECONDS:
            self.note()
        return written

    def _drain(self) -> int:
        lag = self._stores.database.run(search_queue.lag())
        written = self._work.timed(lambda: drain(self._stores, draining_flows.ITERATION_SECONDS))()
        if written:
            self._lag = max(self._lag, lag.oldest_seconds)
        return written

    def note(self) -> None:
        """Add a point to the day's tracking run, if anything was written since the last one."""
        # A drain that found nothing is no point in the day's chart.
        if self._work.rows:
            left = self._stores.database.run(search_queue.lag())
            points = {
                **self._work.metrics(),
                "lag_seconds": self._lag,
                "lag_seconds_after": left.oldest_seconds,
                "waiting_after": left.waiting,
                "dead_letters": left.dead_letters,
            }
            draining_flows.note_point(self._stores.settings, SYNC, points)
        self._begin()
