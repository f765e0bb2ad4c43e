"""@flow rebuild-search-index: a new index beside the one that is read, then one swap.

While it runs, drains write every change to both. Each shard reads its rows just before it writes them, and an index
never takes an older revision, so whatever the order of arrival the newest stays.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

from dask.distributed import Client, LocalCluster, as_completed
from prefect import flow, get_run_logger

from flows.crash_points import reach
from flows.indexing import builds
from flows.indexing.documents import write_to
from flows.indexing.draining import sole_writer
from flows.retries import patiently
from storage.errors import WrongState
from storage.postgres import search_sources
from storage.records.search import Build, Kind
from storage.search.builds import begin
from storage.settings import Settings, load_settings
from storage.stores import Stores, open_stores

REBUILD = "rebuild-search-index"
SHARD = 20_000
"""Documents of a shard: some ten seconds of work."""
BATCH = 1000
THREADS = 2
"""Batches of a shard at a time: one is read while another is sent."""


@flow(name=REBUILD)
def rebuild_search_index(kind: Kind = Kind.MODEL, dask_address: str = "") -> int:
    """Build the index of a kind anew and let searches read it; gives the number of the build.

    `dask_address`: of a scheduler whose workers have this project and its settings; empty: processes on this machine.
    """
    log = get_run_logger()
    with open_stores(load_settings()) as stores:
        build = rebuild(stores, kind, dask_address=dask_address)
    log.info("searches of %s read build %d", kind, build.id)
    return build.id


def rebuild(stores: Stores, kind: Kind, *, dask_address: str = "", shard: int = SHARD) -> Build:
    """Build, fill, catch up, compare, swap. Raises WrongState while another rebuild of the kind runs.

    A failure or a death at any step leaves the old build in place; the next rebuild clears what it left.
    """
    settings = stores.settings
    with stores.database.session_lock(f"{REBUILD}:{kind}") as held:
        if not held:
            raise WrongState(f"A rebuild of {kind} is running already. Wait for it, or cancel its flow run.")
        builds.clear_unfinished(stores, kind)
        builds.drop_retired(stores)
        build = begin(stores, kind)
        reach(settings, "rebuild-begun")
        fill(stores, build, shard=shard, dask_address=dask_address)
        reach(settings, "rebuild-filled")
        stores.search.complete(build)
        stores.search.refresh(build)
        reach(settings, "rebuild-completed")
        builds.catch_up(stores, settings.jobs.patience_seconds)
        builds.mend(stores, build)
        reach(settings, "rebuild-caught-up")
        with sole_writer(stores, kind):
            stores.search.refresh(build)
            stores.search.swap(build)
        reach(settings, "rebuild-swapped")
        return build


def fill(stores: Stores, build: Build, *, shard: int, dask_address: str) -> None:
    """Write every listed row to a build: here when it is one shard, else side by side on Dask."""
    firsts = stores.database.run(search_sources.shards(build.kind, shard))
    ranges: list[tuple[int, int | None]] = [*pairwise(firsts), *((first, None) for first in firsts[-1:])]
    if len(ranges) < 2:
        for first, end in ranges:
            fill_shard(stores, build, first, end)
        return
    if dask_address:
        with Client(dask_address) as client:
            _fill_on(client, stores.settings, build, ranges)
        return
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    workers = min(len(ranges), os.cpu_count() or 1)
    with LocalCluster(n_workers=workers, **options) as local, Client(local) as client:
        _fill_on(client, stores.settings, build, ranges)


def _fill_on(client: Any, settings: Settings, build: Build, ranges: Sequence[tuple[int, int | None]]) -> None:
    futures = [client.submit(fill_shard_alone, settings, build, *ends, pure=False, retries=2) for ends in ranges]
    for done in as_completed(futures):
        done.result()


def fill_shard_alone(settings: Settings, build: Build, first: int, end: int | None) -> int:
    """A shard in a process of its own, which opens its own stores."""
    with open_stores(settings) as stores:
        return fill_shard(stores, build, first, end)


def fill_shard(stores: Stores, build: Build, first: int, end: int | None) -> int:
    """Write the listed rows from `first` to before `end` to a build, as they are just before; gives how many."""
    ids = stores.database.run(search_sources.listed(build.kind, first, end))

    def write(start: int) -> None:
        batch = partial(write_to, stores, build, ids[start : start + BATCH])
        patiently(batch, patience_seconds=stores.settings.jobs.patience_seconds)
        reach(stores.settings, "rebuild-batch-written")

    with ThreadPoolExecutor(THREADS) as threads:
        for written in [threads.submit(write, start) for start in range(0, len(ids), BATCH)]:
            written.result()
    return len(ids)
