"""What a caller is notified of while a drawing is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def ignore(*_: Any) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class DrawingCallbacks:
    """Functions that a backend calls in the thread that draws; what they raise ends the drawing.

    check: called at least every poll; raises to stop, CancellationRequested to take back what was submitted.
    queued: how many pictures of others are in front, when that changes.
    step: picture, steps done, steps in all. preview: picture, and the bytes of a JPEG or PNG.
    """

    check: Callable[[], None] = ignore
    queued: Callable[[int], None] = ignore
    step: Callable[[int, int, int], None] = ignore
    preview: Callable[[int, bytes], None] = ignore
