"""How many bytes of pictures one process has in hand: sixteen of 4,096 x 4,096 pixels at once would take 4 GB.

One that is read, made an image, written as a PNG and stored takes about four times its pixels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

MAX_BYTES = 256 * 1024 * 1024
"""Of pixels, so about a gigabyte of memory: five pictures of 4,096 x 4,096, or eighty of 1,024 x 1,024."""
SMALL_BYTES = 64 * 1024
"""What is not counted: reports between pictures do not wait for them."""
LOOK_SECONDS = 0.2


class PicturesInHand:
    """Bytes that are held, for the threads of one process, in the order in which they ask."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit, self._held = limit, 0
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait for room."""
        return len(self._line)

    @contextmanager
    def holding(self, size: int, check: Callable[[], None]) -> Generator[None]:
        """Hold so many bytes in the block, once there is room; what is larger than the limit is held alone.

        Raises what `check` raises, which is called while it waits.
        """
        if size < SMALL_BYTES:
            yield
            return
        self._wait(size, check)
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()

    def _wait(self, size: int, check: Callable[[], None]) -> None:
        me = object()
        with self._changed:
            self._line.append(me)
        try:
            while not self._has_held(me, size):
                check()
        finally:
            with self._changed:
                self._line.remove(me)
                self._changed.notify_all()

    def _has_held(self, me: object, size: int) -> bool:
        with self._changed:
            has_room = not self._held or self._held + size <= self._limit
            if self._line[0] is me and has_room:
                self._held += size
                return True
            self._changed.wait(LOOK_SECONDS)
            return False
