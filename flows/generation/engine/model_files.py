"""Where an engine's models come from: the blob store, by way of this machine's cache."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from flows.generation.engine.resident_models import key_of
from storage.blobs import cached_folders
from storage.blobs.pictures.stored import stored_picture
from storage.blobs.store import BlobStore
from storage.records.generation.drawings import DrawnAdapter, DrawnModel

PLACE, ADAPTER = "model-versions", "adapter.safetensors"


class BlobFiles:
    """Models, adapters and source pictures by their hashes. `cache`: the folder of copies that can be made again."""

    def __init__(self, blobs: BlobStore, cache: Path) -> None:
        self._blobs, self._place = blobs, cache / PLACE

    @contextmanager
    def folder(self, model: DrawnModel) -> Generator[Path]:
        """See ModelSource."""
        path = cached_folders.use(self._blobs, model.files, self._place / key_of(model))
        try:
            yield path
        finally:
            cached_folders.leave(path)

    @contextmanager
    def adapter(self, adapter: DrawnAdapter) -> Generator[Path]:
        """See ModelSource."""
        path = cached_folders.use(self._blobs, {ADAPTER: adapter.sha256}, self._place / adapter.sha256)
        try:
            yield path / ADAPTER
        finally:
            cached_folders.leave(path)

    def picture(self, sha256: str) -> Image.Image:
        """See `stored_picture`."""
        return stored_picture(self._blobs, sha256)
