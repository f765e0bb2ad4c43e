"""One part of the platform with its process and its history, as the supervisor keeps it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field

from deployments.local.logs import PartLog
from deployments.local.parts import Part
from deployments.local.state import PartState, ProcessName

TRIES_OF_A_FIRST_START = 4


@dataclass(slots=True)
class Supervised:
    """One part with its process and its history."""

    part: Part
    log: PartLog
    state: PartState = PartState.WAITING
    since: float = field(default_factory=time.time)
    process: subprocess.Popen[bytes] | None = None
    name: ProcessName | None = None
    deaths: int = 0
    restarts: int = 0
    was_healthy: bool = False
    next_start: float = 0.0
    next_probe: float = 0.0
    next_look: float = 0.0
    looks: int = 0
    kill_at: float = 0.0
    responded: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def satisfied(self) -> bool:
        """Whether parts that need this one may start."""
        return self.state in (PartState.HEALTHY, PartState.DONE)

    @property
    def settled(self) -> bool:
        """Whether nobody waits for it: it is there, or the platform does without it."""
        given_up = self.deaths >= TRIES_OF_A_FIRST_START or (self.deaths > 0 and not self.was_healthy)
        return self.satisfied or (self.part.optional and given_up)
