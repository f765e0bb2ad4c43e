"""Where an engine's models come from: the blob store, by way of this machine's cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from flows.generation.engine.resident_models import key_of
from storage.blobs import cached_folders
from storage.blobs.pictures.stored import stored_picture
from storage.blobs.store import BlobStore
from storage.records.generation.drawings import DrawnAdapter, DrawnModel

log = logging.getLogger("darkroom.engine")

UNFINISHED_SECONDS = 86400.0
"""After so long a copy that is half made is one that nobody makes any more."""
TIDY_SECONDS = 3600.0
"""How often copies are tidied."""
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

    def shrink(self, limit: int) -> int:
        """Delete the copies that were used longest ago until the others have so many bytes; returns how many. One that
        is being read stays, and so does the memory of what was read."""
        removed = cached_folders.remove_unfinished(self._place, UNFINISHED_SECONDS)
        copies = cached_folders.folders(self._place)
        total = sum(copy.size for copy in copies)
        for copy in copies:
            if total <= limit:
                break
            if cached_folders.remove_unless_used(copy.path):
                total, removed = total - copy.size, removed + 1
        return removed

    def shrink_on(self, limit: int) -> None:
        """Do that now and every hour, for ever, in a thread that ends with the process: elsewhere no other process
        sees this folder."""
        threading.Thread(target=self._shrink_on, args=(limit,), name="tidy-models", daemon=True).start()

    def _shrink_on(self, limit: int) -> None:
        while True:
            try:
                if count := self.shrink(limit):
                    log.info("%d copies of models deleted", count)
            except OSError:
                log.warning("copies of models were not tidied", exc_info=True)
            time.sleep(TIDY_SECONDS)

    def picture(self, sha256: str) -> Image.Image:
        """See `stored_picture`."""
        return stored_picture(self._blobs, sha256)
