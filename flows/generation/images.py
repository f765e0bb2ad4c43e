"""@flow generate-images: the pictures of every workflow that is due, drawn by the backends of this platform.

One run draws many workflows at a time, so that an engine keeps its models and fills its batches. It ends when nothing
has been due for a while; the relay starts the next one when something is.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prefect import flow

from flows.runs import draining_flows
from flows.runs.artifacts import ArtifactBoard
from flows.runs.flow_names import DRAW
from flows.runs.lazy_imports import imported_when_used
from flows.runs.run_logs import run_logger
from flows.upkeep.retention.retention import tidy_folders

if TYPE_CHECKING:
    from flows.generation import images_steps as steps
else:
    steps = imported_when_used("flows.generation.images_steps")

_log = partial(run_logger, "darkroom.generation")


# It takes no parameters: which workflows are due is the database's word. No retries: Prefect would run the flow again
# in the same process, and the relay starts another run anyhow.
@flow(name=DRAW, persist_result=False)
def generate_images() -> int:
    """Draw every workflow that is due, until none has been for a while; returns how many pictures were drawn."""
    with draining_flows.locked_drain(DRAW) as drain:
        if drain is None:
            return 0
        stores, began = drain.stores, time.monotonic()
        with ArtifactBoard() as board:
            # Without the lock from the end of the drawing on: a workflow that comes behind it is another run's at once.
            done = steps.draw_due(stores, board, drain.lock)
        pictures = sum(one.pictures for one in done)
        if done:
            seconds = time.monotonic() - began
            metrics = {"workflows": len(done), "pictures": pictures, "seconds": seconds}
            draining_flows.note_point(stores.settings, DRAW, metrics)
            # Behind the drawing: whoever waits for a picture is not kept waiting by it.
            tidy_folders(stores)
    _log().info("%d workflows, %d pictures", len(done), pictures)
    return pictures
