"""A new index is filled shard by shard, by this process and by Dask workers beside it.

Nothing here imports Prefect: without it a worker starts in a second.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

from flows.indexing.documents import write_to
from flows.runs.crash_points import reach
from flows.runs.dask_cluster import dask_client
from flows.runs.retries import with_retries
from storage.postgres.search import search_sources
from storage.records.search.search import Build
from storage.settings import Settings
from storage.stores import Stores, open_stores

SHARD = 5_000
"""Documents of a shard: a second or two of work."""
BATCH = 1000
OBJECTS = 500_000
"""So many more objects bring on a search for garbage that refers to itself."""
THREADS = 2
"""Batches of a shard at a time: one is read while another is sent."""

Range: TypeAlias = tuple[int, int | None]
"""The first id of a shard, and the one before which it ends; None: it has no end."""


def fill(stores: Stores, build: Build, *, shard: int = SHARD, dask_address: str = "") -> int:
    """Write every listed row to a build; returns how many.

    This process begins at once; Dask workers join it, where there are several shards: those of the scheduler at
    `dask_address`, or one for each further core of this machine.
    """
    firsts = stores.database.run(search_sources.shards(build.kind, shard))
    waiting: deque[Range] = deque([*pairwise(firsts), *((first, None) for first in firsts[-1:])])
    cores = min(len(waiting), os.cpu_count() or 1)
    # A local cluster takes seconds to start, more than a shard of work.
    if not dask_address and cores < 2:
        return _take(waiting, partial(fill_shard, stores, build))
    with (
        _rare_collections(),
        _workers(dask_address, cores - 1) as (client, count),
        ThreadPoolExecutor(count) as threads,
    ):

        def elsewhere(ends: Range) -> int:
            # retries: a worker that dies has its shard written again, which is harmless, as an index never takes an
            # older revision.
            return client.submit(fill_shard_alone, stores.settings, build, ends, pure=False, retries=2).result()

        taken = [threads.submit(_take, waiting, elsewhere) for _ in range(count)]
        return _take(waiting, partial(fill_shard, stores, build)) + sum(each.result() for each in taken)


def _take(waiting: deque[Range], work: Callable[[Range], int]) -> int:
    """Work on what waits until nothing does; returns how many rows. After an error nobody goes on."""
    rows = 0
    while True:
        try:
            ends = waiting.popleft()
        except IndexError:
            return rows
        try:
            rows += work(ends)
        # Also of a cancelled run: other threads would go on with shards of a build that is about to be dropped.
        except BaseException:
            waiting.clear()
            raise


@contextmanager
def _workers(address: str, count: int) -> Generator[tuple[Any, int]]:
    """A client of Dask, and how many shards its workers take at a time."""
    # One thread of this process waits for each worker, because the deque of shards is here: whoever is free takes the
    # next, so a slow worker holds up only its own shard.
    with dask_client(("",) * count, address) as client:
        threads: Any = client.nthreads()
        yield client, max(1, sum(threads.values()) if address else count)


@contextmanager
def _rare_collections() -> Generator[None]:
    """A batch makes many objects and no cycles; looking for these every 700 objects takes a quarter of the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def fill_shard_alone(settings: Settings, build: Build, ends: Range) -> int:
    """A shard in a process of its own, which opens its own stores."""
    with _rare_collections(), open_stores(settings) as stores:
        return fill_shard(stores, build, ends)


def fill_shard(stores: Stores, build: Build, ends: Range) -> int:
    """Write the listed rows of a shard to a build, as they are just before; returns how many."""
    ids = stores.database.run(search_sources.listed(build.kind, *ends))

    def write(start: int) -> None:
        with_retries(stores, partial(write_to, stores, build, ids[start : start + BATCH]))
        reach(stores.settings, "rebuild-batch-written")

    with ThreadPoolExecutor(THREADS) as threads:
        for written in [threads.submit(write, start) for start in range(0, len(ids), BATCH)]:
            written.result()
    return len(ids)
