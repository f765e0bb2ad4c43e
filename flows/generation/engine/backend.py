"""The engine as a backend that draws drawings: pictures as they are done, what happens meanwhile to callbacks."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from PIL import Image

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.engine.client import EngineClient
from flows.generation.engine.messages import DrawRequest, PictureDrawn, PreviewDrawn, StepDone, StillWaiting
from storage.records.generation.drawings import Drawing

NOBODY = DrawingCallbacks()


class EngineBackend:
    """Draws by the engine that listens on a Unix socket. `urgency`: less urgent requests have a larger number."""

    def __init__(self, socket: Path) -> None:
        self._client = EngineClient(socket)

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks = NOBODY, *, first: int = 0, urgency: int = 0
    ) -> Generator[tuple[int, Image.Image]]:
        """The pictures of a drawing from `first` on, RGB, each with its number. Who leaves the loop cancels the rest.

        Raises what `EngineClient.draw` raises, and what a callback raises.
        """
        wanted = tuple(range(first, len(drawing.images)))
        previews = callbacks.preview is not NOBODY.preview
        request = DrawRequest(drawing=drawing, wanted=wanted, previews=previews, urgency=urgency)
        messages = self._client.draw(request)
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
                        yield message.number, Image.frombytes("RGB", (message.width, message.height), message.pixels)
                    case _:
                        pass
        finally:
            # It hangs up, by which the engine knows that nobody wants the rest.
            messages.close()
