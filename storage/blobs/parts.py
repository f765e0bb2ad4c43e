"""Files on their way in: each in a folder of its own on this machine's disk, written by one request at a time.

The folder is the lock (flock): the kernel opens it when its holder dies, and it holds between processes. What a holder
has not confirmed as received may be cut off by the next one, so a process that dies leaves nothing that is half true.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID

from storage.blobs.disks import is_at, sync_folder
from storage.blobs.failures import store_error
from storage.errors import NotFound, UploadBusy

PLACE = "The folder of unfinished uploads"
_BYTES = "bytes"


class PartialUpload:
    """The bytes of one upload, open at the end of what was received. Used by the holder of its folder alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None

    def go_on_at(self, received: int) -> Self:
        """Open behind the first `received` bytes; what lies behind them was never acknowledged and is cut off.

        Raises EOFError when fewer bytes are there: the disk lost some. DiskFull, StoreUnavailable.
        """
        try:
            if not self.path.exists():
                self.path.touch()
                sync_folder(self.path.parent)
            facts = self.path.stat()
            if facts.st_size < received:
                raise EOFError(f"{facts.st_size:,} of {received:,} bytes are left")
            if facts.st_nlink > 1:
                self._own(received)
            # Unbuffered, so that `sync` has nothing of ours to flush; not for appending, since unacknowledged bytes are
            # cut off.
            self._stream = self.path.open("r+b", buffering=0)
            self._stream.truncate(received)
            self._stream.seek(received)
        except OSError as error:
            raise store_error(error, PLACE) from error
        return self

    def take(self, piece: bytes) -> None:
        """Append bytes. Raises DiskFull, StoreUnavailable."""
        view = memoryview(piece)
        try:
            # An unbuffered write may take less than it is given.
            while view:
                view = view[self._opened().write(view) :]
        except OSError as error:
            raise store_error(error, PLACE) from error

    def sync(self) -> None:
        """Have everything on the disk, so that it may be called received. Raises DiskFull, StoreUnavailable."""
        try:
            os.fsync(self._opened().fileno())
        except OSError as error:
            raise store_error(error, PLACE) from error

    def start(self, length: int) -> bytes:
        """The first bytes."""
        with self.path.open("rb") as stream:
            return stream.read(length)

    def close(self) -> None:
        """Close the file; what was not synced may be lost."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            raise ValueError("The part is not open: call go_on_at first.")
        return self._stream

    def _own(self, received: int) -> None:
        """A finish that did not come to its end left these very bytes in the blob store: go on with a copy."""
        copy = self.path.with_name("copy")
        with self.path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
            target.truncate(received)
            os.fsync(target.fileno())
        copy.replace(self.path)


class PartialUploads:
    """Every upload on its way to this machine, by its id."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, identity: UUID) -> None:
        """A place for a new upload. Raises DiskFull, StoreUnavailable."""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder(identity).mkdir(mode=0o700)
            sync_folder(self._root)
        except OSError as error:
            raise store_error(error, PLACE) from error

    @contextmanager
    def hold(self, identity: UUID) -> Generator[PartialUpload]:
        """The part, for one holder at a time, whichever process it is in.

        Raises UploadBusy while another holds it, NotFound when there is no such upload on this machine.
        """
        folder = self._folder(identity)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise NotFound(f"Nothing of upload {identity} is on this machine.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"Another request sends bytes of upload {identity}. Ask for its offset, then go on there."
                raise UploadBusy(message) from error
            # It may have been removed between the opening and the lock.
            if not is_at(descriptor, folder):
                raise NotFound(f"Nothing of upload {identity} is on this machine.")
            with PartialUpload(folder / _BYTES) as part:
                yield part
        finally:
            os.close(descriptor)

    def remove(self, identity: UUID) -> None:
        """Forget an upload's bytes. One that is gone already is no error."""
        shutil.rmtree(self._folder(identity), ignore_errors=True)

    def older_than(self, seconds: float) -> Iterator[UUID]:
        """The uploads to whose folder nothing was added for so long."""
        now = time.time()
        for folder in self._root.iterdir() if self._root.exists() else ():
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                identity = UUID(folder.name)
            except (OSError, ValueError):  # removed meanwhile, or none of ours
                continue
            if now - newest > seconds:
                yield identity

    def _folder(self, identity: UUID) -> Path:
        return self._root / str(identity)
