"""The engine as a backend that draws drawings: pictures as they are done, what happens meanwhile to callbacks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.engine.client import EngineClient
from flows.generation.engine.messages import DrawRequest, PictureDrawn, PreviewDrawn, StepDone, StillWaiting
from flows.generation.pictures_in_hand import PicturesInHand
from storage.records.generation.drawings import Drawing

NOBODY = DrawingCallbacks()


class EngineBackend:
    """Draws by the engine that listens on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._client, self._in_hand = EngineClient(socket), PicturesInHand()

    def status(self) -> dict[str, Any]:
        """What the engine is and holds. Raises BackendUnavailable."""
        return self._client.status()

    def draw(
        self,
        drawing: Drawing,
        callbacks: DrawingCallbacks = NOBODY,
        *,
        wanted: Sequence[int] | None = None,
        urgency: int = 0,
        key: str = "",
    ) -> Generator[DrawnPicture]:
        """The wanted pictures of a drawing by their numbers, all of them by default. Who leaves the loop cancels the
        rest. urgency: less urgent requests have a larger number. key: names it in the engine's logs. A picture that is
        not read yet waits while those of other threads, until they ask for their next, take too much memory.

        Raises what `EngineClient.draw` raises, and what a callback raises.
        """
        request = DrawRequest(
            drawing=drawing,
            wanted=tuple(range(len(drawing.images)) if wanted is None else wanted),
            previews=callbacks.preview is not NOBODY.preview,
            urgency=urgency,
            job=key,
        )
        messages = self._client.draw(request, lambda size: self._in_hand.holding(size, callbacks.check))
        try:
            for message in messages:
                callbacks.check()
                match message:
                    case StillWaiting():
                        callbacks.queued(message.ahead)
                    case StepDone():
                        callbacks.step(message.number, message.step, message.steps)
                    case PreviewDrawn():
                        callbacks.preview(message.number, message.jpeg)
                    case PictureDrawn():
                        yield _drawn(message)
                    case _:
                        pass
        finally:
            # It hangs up, by which the engine knows that nobody wants the rest.
            messages.close()


def _drawn(message: PictureDrawn) -> DrawnPicture:
    image = Image.frombytes("RGB", (message.width, message.height), message.pixels)
    # Of 4,096 x 4,096 pixels it has 50 million bytes, and whoever is suspended on the way still names it.
    message.pixels = b""
    return DrawnPicture(number=message.number, image=image, shape=message.shape, seconds=message.busy_seconds)
