"""@flow sync-search-index: what changed in the rows becomes what searches find.

It drains the queue in three lanes (visibility, edits, counts), reading each row as it is now. One drains at a time; the
relay starts it when rows are due and nobody drains.
"""

from __future__ import annotations

import logging
import time

import psycopg
from prefect import flow, get_run_logger
from prefect.context import FlowRunContext
from psycopg.rows import DictRow

from flows.indexing.draining import SYNC, drain
from storage.postgres import search_queue
from storage.settings import load_settings
from storage.stores import Stores, open_stores

IDLE_SECONDS = 30.0
"""A drain that found work waits this long for more before it ends: a flow run costs seconds."""


@flow(name=SYNC)
def sync_search_index() -> int:
    """Write what changed to the search index until nothing has for a while; gives how many ids were written."""
    with open_stores(load_settings()) as stores, stores.database.session_lock(SYNC) as held:
        if not held:
            _log().info("another run is draining the queue")
            return 0
        stores.database.run(search_queue.next_wakeup(SYNC))
        written = drain_until_idle(stores, IDLE_SECONDS)
        lag = stores.database.run(search_queue.lag())
    _log().info("%d written, %d waiting, %d refused", written, lag.waiting, lag.dead_letters)
    return written


def drain_until_idle(stores: Stores, idle_seconds: float) -> int:
    """Drain again whenever somebody says that rows wait, until nobody has for `idle_seconds`."""
    total = 0
    with stores.database.connect() as listener:
        listener.execute("listen search_queue")
        deadline = time.monotonic() + idle_seconds
        while True:
            written = drain(stores)
            total += written
            now = time.monotonic()
            if written:
                deadline = now + idle_seconds
            elif total == 0 or now >= deadline:
                return total
            _wait(listener, stores, deadline - now)


def _wait(listener: psycopg.Connection[DictRow], stores: Stores, seconds: float) -> None:
    due = stores.database.run(search_queue.next_due())
    limit = seconds if due is None else max(0.05, min(seconds, due))
    for _ in listener.notifies(timeout=limit, stop_after=1):
        return


def _log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    return get_run_logger() if FlowRunContext.get() else logging.getLogger("darkroom.indexing")
