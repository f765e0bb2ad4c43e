"""A stop that loses nothing: streams end with an event that says so, uploads in parts keep what came, requests finish.

uvicorn notifies an application of a stop only when every connection is closed, and a stream never closes by itself. So
the signal is handled here, before uvicorn handles it:

    SIGTERM ─► at once: /health/ready says 503, every event stream ends with the event `closing`
            ─► after UPLOAD_SECONDS: an upload in parts stops taking bytes, marks those it has and returns 503
            ─► after uvicorn's --timeout-graceful-shutdown (10 s): what still runs is cancelled
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

# Below uvicorn's ten, so that what has come can still be marked and its request responded to.
UPLOAD_SECONDS = 4.0
CLOSING_EVENT = b'event: closing\ndata: {"reason": "shutting_down"}\n\n'
"""The last event of a stream: its client connects again, to the next process, and goes on after the last id."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Whether this process was asked to stop, and whoever wants to know when it is."""

    def __init__(self) -> None:
        self.begun = False
        self._streams: set[asyncio.Event] = set()
        self._uploads: set[Callable[[], None]] = set()
        self._uploads_end = False

    def begin(self) -> None:
        """End the streams now, and uploads in parts a little later. Called in the event loop."""
        if self.begun:
            return
        self.begun = True
        for woken in self._streams:
            woken.set()
        asyncio.get_running_loop().call_later(UPLOAD_SECONDS, self._end_uploads)

    @contextlib.contextmanager
    def waking(self, woken: asyncio.Event) -> Generator[None]:
        """Set an event, by which a stream is woken, when the process stops."""
        self._streams.add(woken)
        try:
            yield
        finally:
            self._streams.discard(woken)

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Generator[None]:
        """Call this when an upload shall take no more bytes."""
        self._uploads.add(end)
        # An upload that begins during the stop.
        if self._uploads_end:
            end()
        try:
            yield
        finally:
            self._uploads.discard(end)

    def _end_uploads(self) -> None:
        self._uploads_end = True
        # A copy, as an upload that ends takes itself out of the set.
        for end in list(self._uploads):
            end()


@contextlib.contextmanager
def handling_signals(stopping: Stopping) -> Generator[None]:
    """Begin to stop with the signals that the server stops on, which it handles all the same. A server in a thread
    other than the main one handles none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    # Kludex/uvicorn#451: an application is notified of a stop only after its last connection, so the signal itself has
    # to be handled.
    before = {one: signal.getsignal(one) for one in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        # A signal interrupts whatever runs, also the loop's own code: only this call is safe there.
        loop.call_soon_threadsafe(stopping.begin)
        handler = before[signal.Signals(number)]
        # SIG_DFL and SIG_IGN are numbers.
        if callable(handler):
            handler(number, frame)

    for one in _SIGNALS:
        signal.signal(one, handle)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
