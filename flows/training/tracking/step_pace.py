"""How long the steps of an attempt take, by themselves and from one to the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, median


class StepPace:
    """Steps of one process. Its first one warms up: of pauses there is one less than of steps, and its
    time says nothing of the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: list[float] = []
        self._pauses: list[float] = []
        self._ended = 0.0

    def stepped(self, seconds: float) -> None:
        """A step that took so long has just ended."""
        now = self._clock()
        if self._seconds:
            self._pauses.append(max(0.0, now - self._ended - seconds))
        self._seconds.append(seconds)
        self._ended = now

    @property
    def steps(self) -> int:
        """How many there were."""
        return len(self._seconds)

    @property
    def step_seconds(self) -> float:
        """The median of a step, without the first if there are others; 0 before the first."""
        return median(self._seconds[1:] or self._seconds) if self._seconds else 0.0

    @property
    def pause_seconds(self) -> float:
        """The mean between two steps: checkpoints, samples and validation."""
        return fmean(self._pauses) if self._pauses else 0.0
