"""The backend `comfyui`: the ComfyUI that the settings name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from flows.generation.backends.protocol import Backend, BackendFacts
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.configured import configured_backend
from flows.generation.drawn_pictures import DrawnPicture
from storage.blobs.pictures.stored import stored_picture
from storage.records.generation.drawings import Drawing
from storage.stores import Stores


class ComfyuiBackend:
    """A connection for each thread that uses it: one is for one thread at a time."""

    repeats_freely = True

    def __init__(self, connect: Callable[[], ComfyBackend]) -> None:
        self._connect, self._of_thread = connect, threading.local()
        self._all: list[ComfyBackend] = []

    def facts(self) -> BackendFacts:
        """See Backend."""
        backend = self._mine()
        capabilities = backend.capabilities()
        return BackendFacts(version=backend.version(), capabilities=capabilities.summary())

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """See Backend."""
        return self._mine().lacking(drawing)

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Iterator[DrawnPicture]:
        """See Backend. ComfyUI has no priorities."""
        return self._mine().draw(drawing, callbacks, key=key, wanted=wanted)

    def close(self) -> None:
        """See Backend."""
        for backend in self._all:
            backend.close()

    def _mine(self) -> ComfyBackend:
        found: ComfyBackend | None = getattr(self._of_thread, "backend", None)
        if found is None:
            found = self._of_thread.backend = self._connect()
            self._all.append(found)
        return found


def open_backend(stores: Stores) -> Backend | None:
    """The ComfyUI of the settings, if they name one."""
    if not stores.settings.comfyui.url:
        return None

    def read(sha256: str) -> Image.Image:
        return stored_picture(stores.blobs, sha256)

    return ComfyuiBackend(lambda: configured_backend(stores.settings.comfyui, read))


BACKEND = open_backend
