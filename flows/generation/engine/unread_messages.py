"""What an engine has sent of one request and its reader has not taken yet."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from flows.generation.engine.messages import DrawingFailed, Message, PictureDrawn, PreviewDrawn, StepDone

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Of pictures: over it nothing more of the request should be begun. It is one picture of 4,096 x 4,096 and some."""
KEPT_STEPS = 64
"""So many messages may wait before only the newest step of a picture does."""


class UnreadMessages:
    """A queue from the engine's threads to the server's loop, by which a reader that does not read holds up itself.

    It is the engine's `send`. Older previews of a picture go when a newer one or the picture comes, and older steps
    where much is waiting. `full` says that the reader has to take something before more is drawn for it; `on_room` is
    called, in the server's thread, when it has.
    """

    def __init__(self) -> None:
        self._loop, self._some = asyncio.get_running_loop(), asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: dict[tuple[object, ...], Message] = {}
        self._numbers = itertools.count()
        self._bytes = self._bytes_in_hand = 0
        self._in_hand_since: float | None = None
        self._closed = False
        self.on_room: Callable[[], None] = _nothing

    @property
    def full(self) -> bool:
        """Whether so much is unread that no more should be drawn until some of it has been taken."""
        return self._bytes >= MAX_UNREAD_BYTES

    def __call__(self, message: Message) -> None:
        """Put a message in; from any thread."""
        with self._lock:
            if not self._closed:
                self._put(message)
        # The loop of a server that is stopping takes no more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._some.set)

    def close(self, reason: DrawingFailed) -> None:
        """Forget what is unread: the reader finds the reason in its place, and nothing behind it."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._bytes = self._bytes_in_hand
            self._put(reason)
        self._some.set()

    async def take(self) -> Message:
        """The oldest message, once there is one. What was taken before has been sent by now."""
        self._sent()
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        with self._lock:
            message = self._waiting.pop(next(iter(self._waiting)))
            self._bytes_in_hand = _bytes_of(message)
        self.moved()
        return message

    def moved(self) -> None:
        """The reader has taken a piece of the message in hand."""
        self._in_hand_since = time.monotonic()

    def unread_seconds(self) -> float:
        """For how long the reader has not taken what is offered to it."""
        return 0.0 if self._in_hand_since is None else time.monotonic() - self._in_hand_since

    def _put(self, message: Message) -> None:
        for key in self._replaced_by(message):
            older = self._waiting.pop(key, None)
            self._bytes -= 0 if older is None else _bytes_of(older)
        self._waiting[self._key_of(message)] = message
        self._bytes += _bytes_of(message)

    def _key_of(self, message: Message) -> tuple[object, ...]:
        if isinstance(message, PreviewDrawn) or (isinstance(message, StepDone) and len(self._waiting) >= KEPT_STEPS):
            return type(message), message.number
        return (next(self._numbers),)

    def _replaced_by(self, message: Message) -> list[tuple[object, ...]]:
        match message:
            case StepDone() | PreviewDrawn():
                return [(type(message), message.number)]
            case PictureDrawn():
                return [(PreviewDrawn, message.number)]
            case _:
                return []

    def _sent(self) -> None:
        with self._lock:
            was_full = self.full
            self._bytes -= self._bytes_in_hand
            self._bytes_in_hand, self._in_hand_since = 0, None
            has_room = was_full and not self.full
        if has_room:
            self.on_room()


def _bytes_of(message: Message) -> int:
    match message:
        case PictureDrawn():
            return len(message.pixels)
        case PreviewDrawn():
            return len(message.jpeg)
        case _:
            return 0


def _nothing() -> None:
    """Whoever wants to hear of room says so."""
