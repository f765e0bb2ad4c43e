"""What the threads of an engine share: one lock, and a count by which the one that draws sees that something is new."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class News:
    """A lock with a count of what was told under it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.lock = self._condition
        self.count = 0

    @contextmanager
    def told(self) -> Generator[None]:
        """In the block the lock is held; at its end whoever waits learns that something is new."""
        with self._condition:
            yield
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float) -> bool:
        """Wait until the count is not `seen` any more; False when it still is after so many seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self.count != seen, seconds)
