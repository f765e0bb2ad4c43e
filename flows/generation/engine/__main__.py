"""The engine's process: `python -m flows.generation.engine`."""

from __future__ import annotations

import logging
import signal
from importlib.metadata import version
from types import FrameType

from flows.diffusion.devices import prepare_torch, this_machine
from flows.diffusion.memory import free_bytes
from flows.generation.engine.engine import Engine
from flows.generation.engine.model_files import BlobFiles
from flows.generation.engine.server import served
from flows.jobs.memory_limit import limit_memory
from flows.jobs.stalls import StallLimit, stopped_when_stalled
from flows.runs.liveness import advanced
from storage.blobs.store import BlobStore
from storage.logs import configure
from storage.records.jobs.jobs import Progress
from storage.settings import load_settings

log = logging.getLogger("darkroom.engine")

SHARE_OF_FREE = 0.5
"""Of the device's free memory at the start, for models; what a call needs beside them is about as much."""


def main() -> None:
    """Run an engine until SIGTERM or SIGINT: it draws in this thread."""
    settings = load_settings()
    configure(settings.logs)
    limit_memory(settings.jobs.memory_limit_bytes)
    machine = this_machine(settings)
    device = prepare_torch(machine.threads)
    budget = settings.generation.model_memory_bytes or int(free_bytes(device) * SHARE_OF_FREE)
    files = BlobFiles(BlobStore(settings.blobs, piece_done=advanced), settings.data_folder / "cache")
    engine = Engine(files, files.picture, device, budget, settings.generation.idle_seconds)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        engine.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    facts = {"device": machine.device, "threads": machine.threads, "release": version("darkroom"), "budget": budget}
    limit = StallLimit(settings.jobs.stall_minutes * 60, lambda: Progress(phase="draw"), lambda _error: None)
    with served(engine, facts, settings.engine_socket), stopped_when_stalled(limit):
        log.info("engine is up on %s with %d bytes for models", machine.device, budget)
        engine.run()


if __name__ == "__main__":
    main()
