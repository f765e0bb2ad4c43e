"""The backend `comfyui`: the ComfyUI that the settings name."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from PIL import Image

from flows.generation.backends.protocol import Backend, BackendFacts, Opener
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.configured import configured_backend
from flows.generation.drawn_pictures import DrawnPicture
from storage.blobs.pictures.stored import stored_picture
from storage.records.generation.drawings import Drawing
from storage.stores import Stores


class ComfyuiBackend:
    """See Backend."""

    repeats_freely = True

    def __init__(self, backend: ComfyBackend) -> None:
        self._backend = backend

    def facts(self) -> BackendFacts:
        """See Backend. Whether it is there is asked each time, what it can do now and then."""
        version = self._backend.version()
        return BackendFacts(version=version, capabilities=self._backend.capabilities().summary())

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """See Backend."""
        return self._backend.lacking(drawing)

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Generator[DrawnPicture]:
        """See Backend. ComfyUI has no priorities."""
        return self._backend.draw(drawing, callbacks, key=key, wanted=wanted)

    def close(self) -> None:
        """See Backend."""
        self._backend.close()


def open_backend(stores: Stores) -> Backend | None:
    """The ComfyUI of the settings, if they name one."""
    if not stores.settings.comfyui.url:
        return None

    def read(sha256: str) -> Image.Image:
        return stored_picture(stores.blobs, sha256)

    return ComfyuiBackend(configured_backend(stores.settings.comfyui, read))


BACKEND: Opener = open_backend
