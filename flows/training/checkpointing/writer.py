"""Checkpoints written and stored, as much of it as can be while training goes on.

Where a copy of the state fits into memory, training waits for the copy, else until the system has the bytes. For the
hash, the disk and the store a thread waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpoints import CheckpointContent, CheckpointStore
from flows.training.tensor_files import WrittenFile

log = logging.getLogger("darkroom.checkpoints")


@dataclass(frozen=True)
class CheckpointPause:
    """How long the training stood still for the checkpoint of `step`, in seconds; `size` is in bytes.

    `copied`: into memory, and it is written while the training goes on; else it was written in that time, and what is
    left to do is its hash, the disk and the store.
    """

    step: int
    size: int
    seconds: float
    copied: bool

    @property
    def metrics(self) -> dict[str, float]:
        """As trackers show it."""
        return {"checkpoint_pause_seconds": self.seconds, "checkpoint_gb": self.size / 1e9}


class CheckpointWriter:
    """Writes checkpoints to `folder` and hands them to the store, one at a time.

    `stopping` surrounds the keeping of each, in the thread that does it; `room` is called with the bytes before one is
    written and may refuse it. What that thread raised is raised by the next call of `check`, `write` or
    `wait`.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        folder: Path,
        copies: HostCopies,
        *,
        stopping: Callable[[], AbstractContextManager[None]],
        room: Callable[[int], None],
        kept_step: int = 0,
    ) -> None:
        self._checkpoints, self._folder, self._copies = checkpoints, folder, copies
        self._stopping, self._room = stopping, room
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self.kept_step: int = kept_step
        """The newest step whose checkpoint the store has."""

    def write(self, step: int, content: CheckpointContent) -> CheckpointPause:
        """Write the content as it is now; it may change as soon as this returns. Waits for the one before."""
        started = time.perf_counter()
        self.wait()
        self._room(content.size)
        file = self._folder / f"checkpoint-{step}.safetensors"
        copied = self._copies.fit(content)
        if copied:
            begin = partial(self._copies.take(content).start, file)
        else:
            self._copies.drop()
            begin = partial(_itself, _written(content, file))
        # With the job's id in what it logs.
        self._running = self._thread.submit(copy_context().run, self._keep, step, file, begin)
        pause = CheckpointPause(step, content.size, time.perf_counter() - started, copied)
        how = "copied" if copied else "written"
        log.info("checkpoint %d: %d bytes %s in a pause of %.2f s", step, pause.size, how, pause.seconds)
        return pause

    def check(self) -> None:
        """Raise what a write in the background raised, if it has ended. Returns at once."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written; raise what the write raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """As `wait`, for a training that has ended with an error of its own: what the write raised is logged."""
        try:
            self.wait()
        except Exception as error:
            log.exception("a checkpoint was not kept: %s", type(error).__name__)
        finally:
            self._thread.shutdown()
            self._copies.drop()

    def _keep(self, step: int, file: Path, begin: Callable[[], WrittenFile]) -> None:
        # A cancellation may also come while it is written, which takes minutes.
        with self._stopping():
            try:
                self._checkpoints.keep(step, file, begin().sha256())
            finally:
                # Checkpoints have gigabytes, and the working folder has room for one.
                file.unlink(missing_ok=True)
        self.kept_step = step


def _written(content: CheckpointContent, file: Path) -> WrittenFile:
    try:
        return content.start(file)
    except BaseException:
        # What the disk had no more room for is the first to make some.
        file.unlink(missing_ok=True)
        raise


def _itself(written: WrittenFile) -> WrittenFile:
    return written
