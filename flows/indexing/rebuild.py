"""@flow rebuild-search-index: a new index beside the one that is read, then one swap.

While it runs, drains write every change to both. Each shard reads its rows just before it writes them, and an index
never takes an older revision, so whatever the order of arrival the newest stays.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from prefect import flow, get_run_logger

from flows.indexing import builds
from flows.indexing.bulk_load import SHARD, fill
from flows.indexing.new_builds import begin
from flows.indexing.queue_drain import sole_writer
from flows.runs.artifacts import leave_table
from flows.runs.crash_points import reach
from flows.runs.flow_names import REBUILD
from flows.runs.light_tracking import FAILED, KILLED, RUNNING, note
from flows.runs.retries import with_retries
from storage.errors import WrongState
from storage.postgres.search import search_queue
from storage.records.search.search import Build, Kind
from storage.settings import Settings, load_settings
from storage.stores import Stores, open_stores


@flow(name=REBUILD)
def rebuild_search_index(kind: Kind = Kind.MODEL, dask_address: str = "") -> int:
    """Rebuild the index of a kind and let searches read it; returns the number of the build.

    Args:
        kind: Which index.
        dask_address: The tls:// address of a scheduler whose workers have this project and its settings; empty:
            processes of this machine.
    """
    log = get_run_logger()
    with open_stores(load_settings()) as stores:
        build = rebuild(stores, kind, dask_address=dask_address)
    log.info("searches of %s read build %d", kind, build.id)
    return build.id


def rebuild(stores: Stores, kind: Kind, *, dask_address: str = "", shard: int = SHARD) -> Build:
    """Build, fill, catch up, compare, swap. Raises WrongState while another rebuild of the kind runs.

    A failure or a death at any step leaves the old build in place; the next rebuild clears what it left.
    A store that is unavailable or busy for a while ends no rebuild that has begun to fill.
    """
    settings = stores.settings

    def swap() -> None:
        stores.search.refresh(build)
        stores.search.swap(build)

    with stores.database.session_lock(f"{REBUILD}:{kind}") as held:
        if not held:
            raise WrongState(f"A rebuild of {kind} is running already. Wait for it, or cancel its flow run.")
        # Under the lock, so no living rebuild's build is among them.
        for dead in builds.clear_unfinished(stores, kind):
            note(settings, REBUILD, run_name(dead), {}, status=KILLED)
        builds.drop_retired(stores)
        # Before anything is read: from here on drains write every change to it as well, so none can fall between.
        build = begin(stores, kind)
        reach(settings, "rebuild-begun")
        with tracked(settings, build) as clock:
            clock.metrics["rows"] = fill(stores, build, shard=shard, dask_address=dask_address)
            clock.lap("fill")
            reach(settings, "rebuild-filled")
            # After the filling, not with it: so a rebuild takes time as its rows do. The embedded engine makes its
            # indexes here, Elasticsearch begins to merge and to keep a copy.
            with_retries(stores, lambda: stores.search.complete(build))
            clock.lap("complete")
            reach(settings, "rebuild-completed")
            clock.metrics["lag_seconds"] = stores.database.run(search_queue.lag()).oldest_seconds
            builds.catch_up(stores, settings.jobs.patience_seconds)
            clock.lap("catch_up")
            clock.metrics["repaired"] = with_retries(stores, lambda: builds.repair(stores, build))
            clock.lap("repair")
            reach(settings, "rebuild-caught-up")
            with sole_writer(stores, kind):
                with_retries(stores, swap)
        reach(settings, "rebuild-swapped")
        return build


def run_name(build: Build) -> str:
    """What the tracking run of a build is called."""
    return f"{build.kind} build {build.id}"


class Clock:
    """The metrics of a rebuild: seconds of each step, and what it counts."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._began = self._lap = time.monotonic()

    def lap(self, name: str) -> None:
        """A step is done."""
        now = time.monotonic()
        self.metrics[f"{name}_seconds"] = now - self._lap
        self._lap = now

    def totals(self) -> dict[str, float]:
        """The metrics with the whole time and the rate, so far."""
        seconds = time.monotonic() - self._began
        return {**self.metrics, "seconds": seconds, "rows_per_second": self.metrics.get("rows", 0) / max(seconds, 1e-3)}


@contextmanager
def tracked(settings: Settings, build: Build) -> Generator[Clock]:
    """A rebuild with a tracking run of its own: running, then finished or failed; the next one ends a dead one's."""
    clock = Clock()
    params = {"kind": build.kind, "engine": build.engine, "build": build.id, "encoder": build.encoder}
    note(settings, REBUILD, run_name(build), {}, params=params, status=RUNNING)
    try:
        yield clock
    # A killed process writes no status; the next rebuild ends its tracking run as KILLED.
    except Exception:
        note(settings, REBUILD, run_name(build), clock.totals(), status=FAILED)
        raise
    note(settings, REBUILD, run_name(build), clock.totals())
    leave_table(REBUILD, [clock.totals()])
