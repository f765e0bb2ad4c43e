"""Signs that this process gets on: whoever ends a small piece of work says so, and a watchdog sees when nobody has.

One count for the process and no argument of every function: the pieces are far down, a denoising step or a tensor of a
file, and what calls them need not know that anybody watches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class SignsOfProgress:
    """How often something was done."""

    def __init__(self) -> None:
        self.count = 0
        self._listeners: list[Callable[[], None]] = []

    def advanced(self) -> None:
        """A piece of work is done. Costs next to nothing, and may be called from any thread."""
        self.count += 1
        for listener in self._listeners:
            listener()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Generator[None]:
        """In the block `listener` is called at each sign."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


PROCESS = SignsOfProgress()
"""Of this process."""
advanced = PROCESS.advanced
