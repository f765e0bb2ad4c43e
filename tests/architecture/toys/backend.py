"""The backend `toy`: an image of one colour, by its seed."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from PIL import Image

from flows.generation.backends.protocol import Backend, BackendFacts, Opener
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.records.generation.drawings import Drawing
from storage.stores import Stores


class ToyBackend:
    """Draws without the model."""

    repeats_freely = True

    def facts(self) -> BackendFacts:
        """It is always there."""
        return BackendFacts(version="1.0")

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """It lacks nothing."""
        return {}

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Generator[DrawnPicture]:
        """As red as the seed is great."""
        for number in wanted:
            colour = (drawing.images[number].seed, 0, 0)
            yield DrawnPicture(number=number, image=Image.new("RGB", (drawing.width, drawing.height), colour))

    def close(self) -> None:
        """Nothing is open."""


def open_backend(stores: Stores) -> Backend | None:
    """It needs no setting."""
    return ToyBackend()


BACKEND: Opener = open_backend
