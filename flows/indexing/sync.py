"""@flow sync-search-index: what changed in the rows becomes what searches find.

It drains the queue in three lanes (visibility, edits, counts), reading each row as it is now. One drains at a time; the
relay starts it when rows are due and nobody drains.
"""

from __future__ import annotations

import logging

from prefect import flow, get_run_logger
from prefect.context import FlowRunContext

from flows import drains
from flows.indexing.draining import SYNC, drain
from storage.postgres import search_queue
from storage.settings import load_settings
from storage.stores import Stores, open_stores


@flow(name=SYNC)
def sync_search_index() -> int:
    """Write what changed to the search index until nothing has for a while; gives how many ids were written."""
    with open_stores(load_settings()) as stores, stores.database.session_lock(SYNC) as held:
        if not held:
            _log().info("another run is draining the queue")
            return 0
        stores.database.run(search_queue.next_wakeup(SYNC))
        written = drain_until_idle(stores, drains.IDLE_SECONDS)
        lag = stores.database.run(search_queue.lag())
    _log().info("%d written, %d waiting, %d refused", written, lag.waiting, lag.dead_letters)
    return written


def drain_until_idle(stores: Stores, idle_seconds: float) -> int:
    """Drain again whenever somebody says that rows wait, until nobody has for `idle_seconds`."""
    return drains.drain_until_idle(
        stores,
        "search_queue",
        lambda: drain(stores),
        lambda: stores.database.run(search_queue.next_due()),
        idle_seconds,
    )


def _log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    return get_run_logger() if FlowRunContext.get() else logging.getLogger("darkroom.indexing")
