"""A blob that is being written: bytes under a temporary name, which a writer that fails takes with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from storage.blobs.failures import named, store_error


class UnfinishedBlob:
    """A stream to a temporary name, on the disk when it closes, gone when the writer fails.

    Raises DiskFull, StoreUnavailable.
    """

    def __init__(self, filesystem: Any, path: str, failures: tuple[type[Exception], ...], *, local: bool) -> None:
        self._fs, self._path, self._failures, self._local = filesystem, path, failures, local

    def __enter__(self) -> tuple[BinaryIO, str]:
        with named(self._failures):
            if self._local:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
                self._stream: BinaryIO = Path(self._path).open("wb")
            else:
                self._stream = cast(BinaryIO, self._fs.open(self._path, "wb"))
        return self._stream, self._path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None and self._local:
                self._stream.flush()
                # Before it gets its name: after a power cut a name without its bytes would pass for a whole blob.
                os.fsync(self._stream.fileno())
            self._stream.close()
        except self._failures as failed:
            with suppress(*self._failures):
                # After a flush that failed it is still open; it tries once more, and lets the file go whatever comes.
                self._stream.close()
            self._discard()
            raise store_error(failed) from failed
        if error is not None:
            self._discard()
            if isinstance(error, self._failures):
                raise store_error(error) from error

    def _discard(self) -> None:
        with suppress(*self._failures):  # what stays is swept a day later
            self._fs.rm_file(self._path)
