"""The life of a build around its filling: caught up, compared with the rows, swapped, dropped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial

from flows.indexing.documents import write_everywhere
from flows.indexing.queue_drain import drain_batch
from flows.runs.flow_names import SYNC
from storage.backoff import retried
from storage.errors import StoreUnavailable
from storage.postgres.search import search_builds, search_queue, search_sources
from storage.records.search.search import Build, BuildState, Kind
from storage.stores import Stores

log = logging.getLogger("darkroom.indexing")

READERS_SECONDS = 600.0
"""An old build stays this long after the swap, so that open readers finish."""
# Of ids and revisions alone, so a page is small.
PAGE = 2000


def clear_unfinished(stores: Stores, kind: Kind) -> list[Build]:
    """Drop builds of the kind whose rebuild died; returns them. Only the holder of the rebuild's lock may call it."""
    dropped: list[Build] = []
    # The engine decides, not the row: readers follow its alias, and a death between the two leaves the row behind.
    reading = stores.search.reading(kind)
    for build in stores.database.run(search_builds.of_engine(stores.search.engine)):
        if build.kind is not kind or build.state not in (BuildState.PREPARING, BuildState.BUILDING):
            continue
        if build.id == reading:
            # The engine had swapped already; only the row does not say so.
            stores.database.run(search_builds.swap(build.id))
            continue
        drop(stores, build)
        dropped.append(build)
    return dropped


def drop_retired(stores: Stores, after_seconds: float = READERS_SECONDS) -> list[Build]:
    """Drop builds that nobody has read for a while; returns them."""
    retired = stores.database.run(search_builds.retired(stores.search.engine, after_seconds))
    for build in retired:
        drop(stores, build)
    return retired


def drop_strays(stores: Stores) -> list[int]:
    """Drop indexes that no row names; returns their numbers."""
    # The indexes are listed first: a build's row is there before its index.
    existing = stores.search.existing()
    known = {build.id for build in stores.database.run(search_builds.of_engine(stores.search.engine))}
    strays = [number for number in existing if number not in known]
    for number in strays:
        stores.search.drop_stray(number)
    return strays


def drop(stores: Stores, build: Build) -> None:
    """Nothing is written to the build any more, then its index goes."""
    # In this order: drains list builds by their rows, and one that is listed must have its index (`documents._write`).
    stores.database.run(search_builds.forget(build.id))
    stores.search.drop(build)


def catch_up(stores: Stores, patience_seconds: float) -> None:
    """Wait until every change from before now is written, draining here when nobody else does.

    Raises StoreUnavailable when that takes longer than `patience_seconds`, for example because no relay runs.
    """
    deadline = time.monotonic() + patience_seconds
    # First what was changed before now comes to the queue, then what is in the queue by then is written: an id that
    # never rests is in it all the time, and has been written since.
    for still in (search_queue.on_their_way_since, search_queue.waiting_since):
        moment = stores.database.run(search_queue.now())
        while stores.database.run(still(moment)):
            with stores.database.session_lock(SYNC) as held:
                batch = partial(drain_batch, stores)
                left = deadline - time.monotonic()
                done = retried(batch, StoreUnavailable, patience_seconds=left) if held else 0
            if time.monotonic() > deadline:
                lag = stores.database.run(search_queue.lag())
                raise StoreUnavailable(
                    f"{lag.waiting} changes still wait after {patience_seconds:.0f} s, the oldest for "
                    f"{lag.oldest_seconds:.0f} s. Is the relay running? The old index stays; start the rebuild again."
                )
            if done == 0:
                time.sleep(0.1)


def repair(stores: Stores, build: Build) -> int:
    """Make a build equal to the rows where it is not: ids it lacks, has older, or should not have; returns how many."""
    stores.search.refresh(build)
    repaired = 0
    for missing, extra in differences(stores, build):
        if missing:
            write_everywhere(stores, build.kind, missing)
        if extra:
            stores.search.write(build, [], stores.database.run(search_sources.unlisted(build.kind, extra)))
        repaired += len(missing) + len(extra)
    return repaired


def index_faults(stores: Stores) -> list[str]:
    """One sentence for each kind whose live index is not its rows: the whole set of ids, at their revisions.

    What still waits to be written may differ. The comparison is made twice, because rows change meanwhile: only
    what both found is a fault. Raises StoreUnavailable while the engine is unavailable.
    """
    faults: list[str] = []
    for build in stores.database.run(search_builds.of_engine(stores.search.engine)):
        if build.state is not BuildState.LIVE:
            continue
        wrong = _differing(stores, build)
        if wrong:
            # A page of rows and a page of documents are read one after the other; a write in between looks like a
            # difference once.
            wrong &= _differing(stores, build)
        if wrong:
            some = ", ".join(str(number) for number in sorted(wrong)[:5])
            faults.append(f"the search index of {build.kind} is not its rows: {len(wrong)} differ, {some} among them")
    return faults


def _differing(stores: Stores, build: Build) -> set[int]:
    """Ids that differ and do not wait; none while changes are still on their way to the queue."""
    stores.search.refresh(build)
    found = {number for missing, extra in differences(stores, build) for number in (*missing, *extra)}
    if not found or stores.database.run(search_queue.events_waiting()):
        return set()
    return found - set(stores.database.run(search_queue.waiting_ids(build.kind)))


def differences(stores: Stores, build: Build) -> Iterator[tuple[list[int], list[int]]]:
    """Page by page: ids that the build lacks or has older than the rows, and ids that it has though no list shows them.

    A row that changes meanwhile may be among them.
    """
    after = 0
    while True:
        rows = dict(stores.database.run(search_sources.revisions(build.kind, after, PAGE)))
        kept = dict(stores.search.revisions(build, after=after, limit=PAGE))
        # Compare up to the last id that both pages reach.
        ends = [max(page) for page in (rows, kept) if len(page) == PAGE]
        end = min(ends) if ends else None
        missing = [number for number, revision in rows.items() if kept.get(number, 0) < revision]
        extra = [number for number in kept if number not in rows]
        yield (
            [number for number in missing if end is None or number <= end],
            [number for number in extra if end is None or number <= end],
        )
        if end is None:
            return
        after = end
