"""Backends that do as a test says, and what they were asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from flows.generation.backends.protocol import BackendFacts
from flows.generation.backends.selection import BackendSelection
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.errors import DarkroomError
from storage.records.generation.drawings import Drawing, DrawnImage, DrawnModel

SECONDS = 20.0
DRAWING = Drawing(
    model=DrawnModel(version_id=1, family="sd1", files={"unet": "1" * 64}),
    images=tuple(DrawnImage(prompt="a photo of a mug", seed=seed) for seed in range(3)),
    width=16,
    height=8,
)


def picture(number: int, width: int = 16, height: int = 8, mode: str = "RGB") -> DrawnPicture:
    """One of DRAWING, unless it is said otherwise."""
    return DrawnPicture(number=number, image=Image.new(mode, (width, height)), seconds=0.5)


def ignored(_name: str) -> None:
    """Nobody notes which backend begins."""


@dataclass
class ScriptedBackend:
    """Draws what is wanted. `fails`: raised in place of picture `fails_at`. `sends`: what it returns instead.

    asked: what it was given, in order: the key and the numbers. closed: how often its loop was left early.
    """

    lacks: dict[str, str] = field(default_factory=dict)
    unheard: Exception | None = None
    fails: Exception | None = None
    fails_at: int = 0
    sends: Sequence[DrawnPicture] | None = None
    repeats_freely: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    looks: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def facts(self) -> BackendFacts:
        """What it is, unless it does not respond."""
        self.looks += 1
        assert self.gate.wait(SECONDS)
        if self.unheard is not None:
            raise self.unheard
        return BackendFacts(version="1.0", capabilities={"operations": ["txt2img"]})

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """What the script says."""
        if self.unheard is not None:
            raise self.unheard
        return self.lacks

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Generator[DrawnPicture]:
        """What the script says."""
        self.asked.append((key, tuple(wanted)))
        done = 0
        try:
            for one in [picture(number) for number in wanted] if self.sends is None else self.sends:
                callbacks.check()
                callbacks.step(one.number, 1, 2)
                assert self.gate.wait(SECONDS)
                if self.fails is not None and done == self.fails_at:
                    raise self.fails
                yield one
                done += 1
            if self.fails is not None:
                raise self.fails
        except GeneratorExit:
            self.closed += 1
            raise

    def close(self) -> None:
        """Nothing."""


@dataclass
class Drawn:
    """What came of a drawing: pictures by their numbers with the backend of each, who began, and what it raised."""

    pictures: list[tuple[str, int]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    error: Exception | None = None


def drawn_by(selection: BackendSelection, drawing: Drawing = DRAWING, **asked: Any) -> Drawn:
    """All pictures of a drawing, or the `wanted` ones."""
    drawn, wanted = Drawn(), asked.pop("wanted", range(len(drawing.images)))
    begins: Callable[[str], None] = drawn.begun.append
    callbacks = asked.pop("callbacks", DrawingCallbacks())
    try:
        for name, one in selection.draw(
            drawing, callbacks, key="step", wanted=wanted, urgency=0, begins=begins, **asked
        ):
            drawn.pictures.append((name, one.number))
    except DarkroomError as error:
        drawn.error = error
    return drawn
