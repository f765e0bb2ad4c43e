"""What one side of the benchmark measures of itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from flows.diffusion.devices import wait_for


@dataclass(frozen=True)
class Asked:
    """What both sides train: so many instance images and as many class images a step, of `resolution` pixels a side.

    `scratch` is a folder on a disk for a checkpoint."""

    folder: str
    scratch: str
    resolution: int
    batch: int
    steps: int
    threads: int


@dataclass
class Stages:
    """Seconds of the stages of each step. A GPU is waited for at the end of each stage, on both sides alike."""

    device: torch.device
    steps: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    _running: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    _ended: float = 0.0

    def start(self) -> None:
        """The first step begins now."""
        self._running.clear()
        self._ended = self.now()

    def now(self) -> float:
        """Seconds, once the device has done all that it was asked for."""
        wait_for(self.device)
        return time.perf_counter()

    def add(self, name: str, seconds: float) -> None:
        """Count seconds to a stage of the running step."""
        self._running[name] += seconds

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """The block is a stage, or a part of one."""
        began = self.now()
        yield
        self.add(name, self.now() - began)

    def step_ended(self) -> None:
        """Its seconds are those since the end of the one before: what lies between the steps counts too."""
        now = self.now()
        self.steps.append({"step": now - self._ended, **self._running})
        self._running.clear()
        self._ended = now


def report(stages: Stages, peak: int, **more: Any) -> dict[str, Any]:
    """What a side prints, as JSON: seconds by stage of each step, and the peak of its memory in bytes."""
    return {"steps": stages.steps, "peak": peak, **more}
