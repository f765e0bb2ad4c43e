"""One file of another machine, brought here in pieces: counted while it comes, and gone on with where it broke off."""

from __future__ import annotations

import errno
import threading
import time
from io import RawIOBase
from pathlib import Path
from typing import Any

from storage.errors import DarkroomError

CHUNK = 1024 * 1024
# With growing pauses some 3 s in which nothing new arrives.
FRUITLESS_TRIES = 4
PAUSE_SECONDS = 0.5


class NoPhotos(DarkroomError):
    """Nothing to upload."""

    code = "no_photos"


class Budget:
    """Bytes that all files of a place may have together, whoever reads them at the same time."""

    def __init__(self, maximum: int, address: str) -> None:
        self._maximum, self._left, self._address = maximum, maximum, address
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Raises NoPhotos when there are too many."""
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise NoPhotos(f"{self._address} has more than {self._maximum:,} bytes. Take fewer or smaller photos.")


def fetch_file(filesystem: Any, path: str, target: Path, maximum: int, budget: Budget, address: str) -> None:
    """Write a file to `target`. A read that breaks is gone on with; only tries that came no farther are counted.

    `address` is what messages call it. Raises NoPhotos.
    """
    done, farthest, fruitless = 0, 0, 0
    with target.open("wb", buffering=0) as sink:
        while True:
            fault: Exception | None = None
            try:
                with filesystem.open(path, "rb") as source:
                    if done and not _goes_on(source, done):
                        budget.take(-done)
                        done = sink.seek(0)
                        sink.truncate()
                    while piece := source.read(CHUNK):
                        done += len(piece)
                        _check_size(done, maximum, address)
                        budget.take(len(piece))
                        _write(sink, piece)
                    size = getattr(source, "size", None)
                if size is None or done == size:
                    return
            except DarkroomError:
                raise
            except Exception as error:  # noqa: BLE001 - each protocol's library has its own
                fault = error
                if not _passes(error):
                    raise unreadable(error, address) from None
            # Of a stream that begins again, what came before is nothing new.
            fruitless = 0 if done > farthest else fruitless + 1
            farthest = max(farthest, done)
            if fruitless >= FRUITLESS_TRIES:
                raise unreadable(fault or EOFError(), address)
            time.sleep(PAUSE_SECONDS * fruitless)


def unreadable(error: Exception, address: str) -> NoPhotos:
    """An error of a protocol's library as ours: in our words, since its own may repeat a password or a signature."""
    status = getattr(error, "status", None)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoPhotos(f"no room left in the folder of temporary files for {address}. Free some, or set TMPDIR.")
    if isinstance(error, FileNotFoundError) or status == 404:
        return NoPhotos(f"there is nothing at {address}. Check the address; some stores hide what they do not show.")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
        return NoPhotos(
            f"{address} may not be read ({type(error).__name__}). Give credentials in the environment, as the "
            "protocol's library reads them (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public bucket "
            "FSSPEC_S3_ANON=true)."
        )
    return NoPhotos(f"{address} cannot be read ({type(error).__name__}). Check the address and try again.")


def _passes(error: Exception) -> bool:
    """Whether the same read may succeed later."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status == 429
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EACCES):
        return False
    final = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, TypeError)
    return not isinstance(error, final) and "Credential" not in type(error).__name__


def _goes_on(source: Any, position: int) -> bool:
    """Whether a stream can be read from a place; some servers send a file from its beginning only."""
    try:
        return source.seek(position) == position
    except (OSError, ValueError, NotImplementedError):
        return False


def _write(sink: RawIOBase, piece: bytes) -> None:
    """All of it: a disk that is nearly full takes a part of a write, and refuses the next one."""
    rest = memoryview(piece)
    while rest:
        rest = rest[sink.write(rest) or 0 :]


def _check_size(size: int, maximum: int, address: str) -> None:
    if size > maximum:
        raise NoPhotos(f"{address} has more than {maximum:,} bytes. Export it smaller.")
