"""What every generation backend offers: the pictures of a drawing, and what it can and cannot draw.

A file of this folder has BACKEND, a function that opens it from the stores; it returns None where the settings name no
such backend.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.records.generation.drawings import Drawing
from storage.stores import Stores


@dataclass(frozen=True, kw_only=True)
class BackendFacts:
    """What a backend says of itself. capabilities: plain JSON for people, such as its operations and schedulers."""

    version: str
    capabilities: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """One engine that draws. Several threads use it at once."""

    def facts(self) -> BackendFacts:
        """Ask it. Raises BackendUnavailable when it does not respond, BackendBroken when not as it should."""
        ...

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """What it lacks for a drawing, by field; empty if it can draw it. Raises as `facts`."""
        ...

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Generator[DrawnPicture]:
        """The wanted pictures of a drawing by their numbers, each once, in whichever order they are done. Who leaves
        the loop cancels the rest.

        key: what they belong to, such as a step's id: an attempt with the same key finds what an earlier one submitted.
        urgency: less urgent ones have a larger number.

        Raises BackendRefused before anything is submitted; BackendUnavailable, or another StoreUnavailable, after which
        the same call goes on where it was; BackendBroken and other JobCannotSucceed; what a callback raises.
        """
        ...

    @property
    def repeats_freely(self) -> bool:
        """Whether nothing is lost or paid twice when what was given to it is drawn by another backend as well."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


Opener = Callable[[Stores], Backend | None]
