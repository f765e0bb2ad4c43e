"""The six hashes of a model file, taken while its bytes pass by, in pieces of any length.

What each is: storage.records.catalog.catalog.FileHashes. Nothing here keeps bytes, so memory does not grow with the
file.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from storage.blobs.weights import LENGTH_BYTES
from storage.records.catalog.catalog import FileHashes

# AutoV1 is of the 64 KiB that begin at 1 MiB, as the first web UIs hashed checkpoints.
AUTO_V1_BEGIN = 0x100000
AUTO_V1_END = 0x110000
PIECE = 1024 * 1024


class HashedFile(NamedTuple):
    """A file's SHA-256 in lower-case digits, and its other hashes in upper case as the catalogue shows them."""

    sha256: str
    hashes: FileHashes


class ModelHasher:
    """Hashes a file that arrives from its first byte on. Not for two threads at once."""

    def __init__(self) -> None:
        self.length = 0
        """Bytes taken so far."""
        self._sha256, self._auto_v1, self._auto_v3 = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._blake3 = blake3()
        self._crc32 = 0
        self._start = b""

    def copy(self) -> ModelHasher:
        """Another hasher that has taken the same bytes, to go back to when those that follow are not kept."""
        twin = ModelHasher()
        twin.length, twin._crc32, twin._start = self.length, self._crc32, self._start
        twin._sha256, twin._auto_v1, twin._auto_v3 = self._sha256.copy(), self._auto_v1.copy(), self._auto_v3.copy()
        twin._blake3 = self._blake3.copy()
        return twin

    def take(self, piece: bytes) -> None:
        """The next bytes of the file."""
        begin, self.length = self.length, self.length + len(piece)
        self._sha256.update(piece)
        self._blake3.update(piece)
        self._crc32 = zlib.crc32(piece, self._crc32)
        # A view, so that the slices copy nothing.
        view = memoryview(piece)
        self._auto_v1.update(view[max(0, AUTO_V1_BEGIN - begin) : max(0, AUTO_V1_END - begin)])
        if len(self._start) < LENGTH_BYTES:
            self._start += piece[: LENGTH_BYTES - len(self._start)]
        if len(self._start) == LENGTH_BYTES:
            # AutoV3 is of the tensors alone: the header, which holds the metadata, may be edited without changing it.
            data_begin = LENGTH_BYTES + int.from_bytes(self._start, "little")
            self._auto_v3.update(view[min(len(piece), max(0, data_begin - begin)) :])

    def finish(self) -> HashedFile:
        """The hashes of what was taken; more may be taken after it."""
        return HashedFile(
            self._sha256.hexdigest(),
            FileHashes(
                auto_v1=self._auto_v1.hexdigest()[:8].upper(),
                auto_v3=self._auto_v3.hexdigest()[:12].upper(),
                crc32=f"{self._crc32:08X}",
                blake3=self._blake3.hexdigest().upper(),
            ),
        )


def hash_again(path: Path, length: int) -> ModelHasher:
    """A hasher that has taken the first `length` bytes of the file, as after a restart.

    Raises OSError when it cannot be read, and EOFError when it is shorter: what was acknowledged is then not there.
    """
    return hash_on(ModelHasher(), path, length)


def hash_on(hasher: ModelHasher, path: Path, length: int) -> ModelHasher:
    """The same hasher after the file's bytes from where it is up to `length`. Raises as `hash_again` does."""
    with path.open("rb") as stream:
        stream.seek(hasher.length)
        while hasher.length < length:
            piece = stream.read(min(PIECE, length - hasher.length))
            if not piece:
                raise EOFError(f"{path.name} has {hasher.length:,} bytes, not {length:,}. Send the file again.")
            hasher.take(piece)
    return hasher
