"""Drains and rebuilds in processes of their own, which may be killed at a named point. Forked warm: 50 ms each."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from flows.indexing.queue_drain import drain
from flows.indexing.rebuild import rebuild
from flows.runs.flow_names import SYNC
from storage.records.search.search import Kind
from storage.settings import Settings
from storage.stores import open_stores
from tests.warm import CONTEXT

KILLED = -9
DRAIN_STEPS = ("search-queue-read", "search-documents-written")
REBUILD_STEPS = tuple(
    f"rebuild-{step}" for step in ("begun", "batch-written", "filled", "completed", "caught-up", "swapped")
)


def drain_once(settings: Settings, _kind: Kind) -> None:
    """What the sync flow does."""
    with open_stores(settings) as stores, stores.database.session_lock(SYNC) as held:
        if held:
            drain(stores)


def rebuild_once(settings: Settings, kind: Kind) -> None:
    """What the rebuild flow does."""
    with open_stores(settings) as stores:
        rebuild(stores, kind)


def run_flow(
    flow: Callable[[Settings, Kind], None], settings: Settings, kind: Kind, *, kill_at: str, folder: Path
) -> bool:
    """Run a flow to its end, or until it is killed at a point (`kill_at` not empty); returns whether it was killed."""
    points = {kill_at: f"die:{folder / uuid.uuid4().hex}"} if kill_at else {}
    armed = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"crash_points": points})})
    process = CONTEXT.Process(target=flow, args=(armed, kind))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED), (
        f"{flow.__name__} ended with {process.exitcode}, to be killed at '{kill_at}'"
    )
    return process.exitcode == KILLED
