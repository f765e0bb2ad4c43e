"""The engine's process: `python -m flows.generation.engine`."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.diffusion.devices import prepare_torch, this_machine
from flows.diffusion.memory import free_bytes
from flows.generation.engine.engine import Engine
from flows.generation.engine.model_files import BlobFiles
from flows.generation.engine.server import served
from flows.generation.engine.stop_signals import StopSignals
from flows.jobs.memory_limit import limit_memory
from flows.jobs.stalls import StallLimit, stopped_when_stalled
from flows.runs.liveness import advanced
from storage.blobs.store import BlobStore
from storage.errors import DarkroomError
from storage.logs import configure
from storage.records.jobs.jobs import Progress
from storage.settings import GIB, load_settings

log = logging.getLogger("darkroom.engine")

SHARE_OF_FREE = 0.5
"""Of the device's free memory at the start, for models; what a call needs beside them is about as much."""


def main() -> None:
    """Run an engine until SIGTERM or SIGINT: it draws in this thread. A second signal ends the process at once."""
    settings = load_settings()
    configure(settings.logs)
    limit_memory(settings.jobs.memory_limit_bytes)
    machine = this_machine(settings)
    device = prepare_torch(machine.threads)
    budget = settings.generation.model_memory_bytes or int(free_bytes(device) * SHARE_OF_FREE)
    files = BlobFiles(BlobStore(settings.blobs, piece_done=advanced), settings.data_folder / "cache")
    files.shrink_on(int(settings.retention.model_version_cache_gib * GIB))
    engine = Engine(files, files.picture, device, budget, settings.generation.idle_seconds)
    stopping = StopSignals(engine.stop)
    stopping.install()
    facts: dict[str, Any] = {"device": machine.device, "threads": machine.threads, "budget": budget}
    facts |= {"release": version("darkroom"), "pid": os.getpid()}
    limit = StallLimit(settings.jobs.stall_minutes * 60, lambda: Progress(phase="draw"), lambda _error: None)
    status = draw_until_stopped(engine, facts, settings.engine_socket, limit)
    stopping.ended(status)
    sys.exit(status)


def draw_until_stopped(engine: Engine, facts: dict[str, Any], socket: Path, limit: StallLimit) -> int:
    """Serve an engine and draw; returns the exit status. What ended it by name is logged."""
    try:
        with served(engine, facts, socket), stopped_when_stalled(limit):
            log.info("engine is up with %s", facts)
            engine.run()
    except DarkroomError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    main()
