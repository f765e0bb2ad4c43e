"""Requests in the engine, and their pictures, in the order in which they are drawn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from flows.diffusion.trajectories import ALONE, Guidance, Trajectory
from flows.generation.engine.messages import DrawRequest, Message
from flows.generation.engine.news import News
from flows.generation.engine.resident_model import ResidentModel
from flows.generation.engine.resident_models import key_of
from storage.records.generation.drawings import Drawing, Operation


@dataclass(eq=False)
class Ticket:
    """A request in the engine. `send` is called from the engine's threads with each message."""

    request: DrawRequest
    send: Callable[[Message], None]
    arrival: int
    left: int
    since: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    ended: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be drawn of it."""
        return self.cancelled or self.ended

    @property
    def is_full(self) -> bool:
        """Whether whoever asked has much to read before more is drawn for it (`UnreadMessages`)."""
        return bool(getattr(self.send, "full", False))

    @property
    def order(self) -> tuple[int, int]:
        """Before which others it goes."""
        return self.request.urgency, self.arrival


@dataclass(eq=False)
class PictureInWork:
    """One picture of a request, waiting or begun.

    key: its model's; empty where it needs none. model: the one that it was begun with, which it keeps to its end.
    apart: drawn in calls of its own, since one with others failed. tried_again: after it found no memory.
    """

    ticket: Ticket
    number: int
    key: str
    shape: int = 0
    model: ResidentModel | None = None
    trajectory: Trajectory | None = None
    group: tuple[object, ...] = ()
    began: float = 0.0
    busy_seconds: float = 0.0
    previewed: float = 0.0
    apart: bool = False
    tried_again: bool = False

    @property
    def drawing(self) -> Drawing:
        """What it is a picture of."""
        return self.ticket.request.drawing

    @property
    def fixed_shape(self) -> int:
        """The batch shape that its request asks for; 0 leaves it open."""
        return ALONE if self.drawing.exact else self.drawing.shape

    @property
    def outline(self) -> tuple[object, ...]:
        """What pictures in one call share, as far as it is known before they are begun."""
        drawing = self.drawing
        guided = Guidance(drawing.guidance_scale).needed
        return self.key, drawing.adapters, drawing.width, drawing.height, guided, drawing.clip_skip

    def begin_again(self) -> None:
        """Forget what was drawn of it."""
        self.trajectory, self.model, self.group, self.shape, self.busy_seconds = None, None, (), 0, 0.0


class Line:
    """The pictures that wait or are in work, the most urgent and oldest first."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._pictures: list[PictureInWork] = []
        self._numbers = itertools.count()

    def add(self, request: DrawRequest, send: Callable[[Message], None]) -> Ticket:
        """Put the wanted pictures of a request in line."""
        # Made larger without a model: nobody waits until one is loaded.
        key = "" if request.drawing.operation is Operation.UPSCALE else key_of(request.drawing.model)
        with self._news.told():
            ticket = Ticket(request, send, next(self._numbers), len(request.wanted))
            self._pictures += [PictureInWork(ticket, number, key) for number in request.wanted]
            self._pictures.sort(key=lambda one: one.ticket.order)
        return ticket

    def remove(self, tickets: Collection[Ticket]) -> None:
        """Take all pictures of these requests out of the line."""
        with self._news.told():
            self._pictures = [one for one in self._pictures if one.ticket not in tickets]

    def done(self, picture: PictureInWork) -> None:
        """Take one picture out of the line; its request has ended with its last one."""
        with self._news.lock:
            self._pictures = [one for one in self._pictures if one is not picture]
            picture.ticket.left -= 1
            picture.ticket.ended = not picture.ticket.left

    def pictures(self) -> list[PictureInWork]:
        """All of them in their order."""
        with self._news.lock:
            return list(self._pictures)

    def __len__(self) -> int:
        with self._news.lock:
            return len(self._pictures)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many pictures of other requests go before a request's."""
        with self._news.lock:
            return sum(one.ticket.order < ticket.order for one in self._pictures)
