"""Requests in the engine, and their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flows.diffusion.trajectories import ALONE, Trajectory
from flows.generation.engine.messages import DrawRequest, Message
from storage.records.generation.drawings import Drawing


@dataclass(eq=False)
class Ticket:
    """A request in the engine. `send` is called from the engine's threads with each message."""

    request: DrawRequest
    send: Callable[[Message], None]
    arrival: int
    left: int
    cancelled: bool = False
    ended: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be drawn of it."""
        return self.cancelled or self.ended

    @property
    def order(self) -> tuple[int, int]:
        """Before which others it goes."""
        return self.request.urgency, self.arrival


@dataclass(eq=False)
class PictureInWork:
    """One picture of a request, waiting or in work."""

    ticket: Ticket
    number: int
    key: str
    shape: int = 0
    trajectory: Trajectory | None = None
    group: tuple[object, ...] = ()
    began: float = 0.0
    busy_seconds: float = 0.0
    previewed: float = 0.0

    @property
    def drawing(self) -> Drawing:
        """What it is a picture of."""
        return self.ticket.request.drawing

    @property
    def fixed_shape(self) -> int:
        """The batch shape that its request asks for; 0 leaves it open."""
        return ALONE if self.drawing.exact else self.drawing.shape
