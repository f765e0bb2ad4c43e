"""How an engine ends when it is asked to: after the call that it is in, but not whenever that may be."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("darkroom.engine")

STOP_SECONDS = 25.0
"""Less than the 30 seconds after which Kubernetes kills. Nothing is lost: whoever waits asks the next engine."""
LOADER_SECONDS = 5.0


class StopSignals:
    """Handles SIGTERM and SIGINT: the first stops the engine, the second one, or a time limit, ends the process.

    `leave` ends it at once, with this exit status.
    """

    def __init__(
        self, stop: Callable[[], None], seconds: float = STOP_SECONDS, leave: Callable[[int], object] = os._exit
    ) -> None:
        self._stop, self._seconds, self._leave = stop, seconds, leave
        self._limit: threading.Timer | None = None

    def install(self) -> None:
        """Receive the signals from now on."""
        signal.signal(signal.SIGTERM, self.received)
        signal.signal(signal.SIGINT, self.received)

    def received(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal has come."""
        if self._limit is not None:
            self._leave(128 + number)
            return
        self._limit = threading.Timer(self._seconds, self._leave_late, args=(128 + number,))
        self._limit.daemon = True
        self._limit.start()
        self._stop()

    def ended(self, status: int) -> None:
        """The engine has ended. Leave with this status if a model is still being loaded: torch, called from a thread
        while the interpreter ends, may abort the process."""
        for thread in threading.enumerate():
            if thread.name == "load-model":
                thread.join(LOADER_SECONDS)
                if thread.is_alive():
                    log.warning("a model is still being loaded: this process ends without it")
                    logging.shutdown()
                    self._leave(status)

    def _leave_late(self, status: int) -> None:
        log.warning("the engine's call has not ended in %g seconds: this process ends now", self._seconds)
        logging.shutdown()
        self._leave(status)
