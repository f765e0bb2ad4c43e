"""A blob is removed, and comes back when what it was removed for does not come about."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.blobs.disks import move
from storage.blobs.failures import named, store_error
from storage.blobs.stored import facts_at
from storage.errors import DiskFull

log = logging.getLogger("darkroom.blobs")


@dataclass(frozen=True)
class BytesRemoval:
    """The removal of the bytes at `path` from an fsspec file system; meanwhile they are kept at `copy`.

    `local`: both are paths of this machine's disk. `failures` are what the file system raises.
    """

    filesystem: Any
    local: bool
    failures: tuple[type[Exception], ...]
    path: str
    copy: str

    @contextmanager
    def held(self) -> Generator[None]:
        """The bytes are gone while the block runs, and for good if it ends well. Else they come back. Raises DiskFull,
        StoreUnavailable."""
        was_there = True
        try:
            with named(self.failures):
                was_there = self._remove()
            yield
        # Also for a cancellation or SystemExit: no matter why the block ends, the bytes have to come back.
        except BaseException:
            if was_there:
                self._put_back()
            raise
        self._drop_copy()

    def _remove(self) -> bool:
        """Whether there was something to remove."""
        try:
            if not (self._keep_copy() and self.local):  # a disk moves them
                self.filesystem.rm_file(self.path)
        except FileNotFoundError:
            return False
        return True

    def _keep_copy(self) -> bool:
        """False where there is no room for a copy: a full store must be emptied all the same. A disk says that it is
        full; object stores have words of their own for it, and their clients have tried passing errors again."""
        try:
            if self.local:
                move(Path(self.path), Path(self.copy))
            else:
                self.filesystem.cp_file(self.path, self.copy)
        except FileNotFoundError:
            raise
        except self.failures as error:
            if self.local and not isinstance(store_error(error, ""), DiskFull):
                raise
            log.warning("no copy of %s is kept while it is removed: %s: %s", self.path, type(error).__name__, error)
            return False
        return True

    def _put_back(self) -> None:
        """Raises nothing: what cannot be put back is logged, with where the copy is."""
        try:
            if facts_at(self.filesystem, self.path) is None:
                if facts_at(self.filesystem, self.copy) is None:
                    log.error("%s is gone, and no copy of it was kept. If a row names it: restore it", self.path)
                    return
                if self.local:
                    move(Path(self.copy), Path(self.path))
                else:
                    self.filesystem.cp_file(self.copy, self.path)
        except self.failures:
            log.exception("%s could not be put back. If a copy was kept it is, for a day, in %s", self.path, self.copy)
            return
        self._drop_copy()

    def _drop_copy(self) -> None:
        with suppress(*self.failures):  # what stays is swept a day later
            self.filesystem.rm_file(self.copy)
