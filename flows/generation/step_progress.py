"""How far a step is, and what it looks like so far, for those who watch: at most twice a second."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable

from PIL import Image

from flows.generation.callbacks import DrawingCallbacks
from flows.jobs.lifecycle import TICK_SECONDS, RunningJob
from storage.records.generation.drawings import Drawing, Operation
from storage.records.generation.resolved_workflows import ResolvedStep
from storage.records.generation.scheduler_limits import unet_calls
from storage.records.jobs.jobs import Progress

LONGEST_PREVIEW_BYTES, LONGEST_PREVIEW_SIDE = 4 * 1024 * 1024, 2048
_JPEG = b"\xff\xd8\xff"


class StepProgress:
    """The progress of one step, counted in UNet calls over all its pictures."""

    def __init__(self, job: RunningJob, name: str, drawing: Drawing, kept: Iterable[int]) -> None:
        """`kept`: the numbers of the pictures that are there already."""
        self._job, self._name = job, name
        self._calls = _calls(drawing)
        self._total = self._calls * len(drawing.images)
        self._done = dict.fromkeys(kept, self._calls)
        self._shown_at = 0.0
        # A backend may call back from a thread of its own.
        self._lock = threading.Lock()
        self._report()

    def callbacks(self) -> DrawingCallbacks:
        """What a backend calls."""
        return DrawingCallbacks(check=self._job.check, step=self._step, preview=self._preview)

    def kept(self, number: int) -> None:
        """A picture is done and stored."""
        with self._lock:
            self._done[number] = self._calls
        self._report()

    def _step(self, number: int, step: int, steps: int) -> None:
        with self._lock:
            # A picture is done when it is kept: what a backend claims of its steps ends no progress bar.
            reached = self._calls * min(step, steps) // max(steps, 1)
            self._done[number] = max(self._done.get(number, 0), min(reached, self._calls))
        self._report()

    def _report(self) -> None:
        with self._lock:
            done = sum(self._done.values())
        self._job.report(self._name, min(done, self._total), self._total)

    def _preview(self, _number: int, content: bytes) -> None:
        now = time.monotonic()
        if now - self._shown_at < TICK_SECONDS:
            return
        jpeg = as_jpeg(content)
        if jpeg:
            self._shown_at = now
            self._job.stores.progress.show(self._job.id, jpeg)


def whole(step: ResolvedStep) -> Progress:
    """The progress of a step that is done."""
    total = _calls(step.drawing) * len(step.drawing.images)
    return Progress(phase=step.name, step=total, total=total)


def _calls(drawing: Drawing) -> int:
    upscale = drawing.operation is Operation.UPSCALE
    return 1 if upscale else unet_calls(drawing.scheduler, drawing.steps, drawing.strength)


def as_jpeg(content: bytes) -> bytes:
    """A preview as a JPEG; empty for one that is none, or too large to look at."""
    if len(content) > LONGEST_PREVIEW_BYTES:
        return b""
    if content.startswith(_JPEG):
        return content
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "WEBP"]) as image:
            if max(image.size) > LONGEST_PREVIEW_SIDE:
                return b""
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=80)
    except (OSError, SyntaxError, ValueError):
        return b""
    return buffer.getvalue()
