"""A tracker at work on a thread of its own, so that no training waits for it or fails with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue

from flows.training.tracking.protocol import Tracker

log = logging.getLogger("darkroom.tracking")

END_SECONDS = 60.0
"""How long the end of a training waits for a tracker to take what it still has to."""


class BackgroundTracker:
    """Carries out calls in their order. The first that raises is logged; the tracker then gets no other."""

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        self._name, self._begin = name, begin
        self._calls: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()
        self._failed = threading.Event()
        work = copy_context().run  # what it logs belongs to what this does
        self._thread = threading.Thread(target=work, args=(self._work,), name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def call(self, call: Callable[[Tracker], None]) -> None:
        """Have the tracker do something, later."""
        if not self._failed.is_set():
            self._calls.put(call)

    def end(self, status: str, wait_seconds: float = END_SECONDS) -> None:
        """End the record when all before is done; waits for it, but not for ever."""
        self.call(lambda tracker: tracker.end(status))
        self._calls.put(None)
        self._thread.join(wait_seconds)
        if self._thread.is_alive():
            log.warning("tracker %s has not taken everything after %.0f s", self._name, wait_seconds)

    def _work(self) -> None:
        try:
            tracker = self._begin()
            while (call := self._calls.get()) is not None:
                call(tracker)
        # A library of others, and perhaps its server: whatever they raise, the training goes on.
        except Exception as error:  # noqa: BLE001
            self._failed.set()
            text = str(error).partition("\n")[0][:200]
            log.warning("tracker %s gets no more of this job: %s: %s", self._name, type(error).__name__, text)
