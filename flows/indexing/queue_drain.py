"""Drains the search queue: each id that waits is read as it is now and written to every build."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager

from flows.indexing.documents import write_everywhere
from flows.runs.crash_points import reach
from flows.runs.retries import with_retries
from storage.errors import StoreUnavailable
from storage.postgres.search import search_queue
from storage.records.search.search import Kind
from storage.stores import Stores

BATCH = 200


@contextmanager
def sole_writer(stores: Stores, kind: Kind) -> Generator[None]:
    """Hold what a batch of a drain and the swap of a build exclude each other by.

    Else a batch between a new build's last refresh and the swap could be seen in the old build and, for a second, not
    in the new one. Raises StoreUnavailable when the other does not end.
    """
    deadline = time.monotonic() + stores.settings.jobs.patience_seconds
    while True:
        with stores.database.session_lock(f"search-writes:{kind}") as held:
            if held:
                yield
                return
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"Somebody has been writing {kind} for too long. Is a flow run stuck?")
        time.sleep(0.05)


def drain(stores: Stores, seconds: float = math.inf) -> int:
    """Write everything that is due, for about so many seconds at most; returns how many ids.

    Waits for a store that is unavailable, as long as the settings say.
    """
    total, ends = 0, time.monotonic() + seconds
    while True:
        batch = with_retries(stores, lambda: drain_batch(stores))
        # A deadline is looked at between batches only: a batch that was begun is always acknowledged.
        total += batch
        if batch == 0 or time.monotonic() > ends:
            return total


def drain_batch(stores: Stores, limit: int = BATCH) -> int:
    """Write one batch of the most urgent lane; returns how many ids. A crash anywhere only repeats it."""
    # Rows stay in the queue while they are written, and `done` removes only those that nobody has queued again
    # meanwhile.
    rows = stores.database.run(search_queue.due(limit))
    reach(stores.settings, "search-queue-read")
    for kind in Kind:
        ids = [row.id for row in rows if row.kind is kind]
        if ids:
            with sole_writer(stores, kind):
                write_everywhere(stores, kind, ids)
    reach(stores.settings, "search-documents-written")
    if rows:
        stores.database.run(search_queue.done(rows))
    return len(rows)
