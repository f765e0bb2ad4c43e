"""Small files that this machine can make again: checked when they are read, written whole or not at all.

Each begins with the SHA-256 of its name and its content, so that a file that was torn, changed or renamed is not used.
Those used longest ago are deleted when all together are too large. No lock: whoever finds a file gone makes it again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from storage.blobs.walks import walk

log = logging.getLogger("darkroom.cache")

_DIGEST_BYTES = 32
_UNFINISHED_SECONDS = 24 * 3600.0


class CachedFiles:
    """Files in one place of the cache. `keep_free_bytes`: nothing is written to a disk that has less room.

    What does not work makes nothing fail: a cache that cannot be read or written is no cache.
    """

    def __init__(self, place: Path, keep_free_bytes: int = 0) -> None:
        self._place, self._keep_free = place, keep_free_bytes
        self._writes = True

    def read(self, name: str) -> bytes | None:
        """What was written under a name (a path inside the place); None where nothing whole is there."""
        path = self._place / name
        try:
            whole = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a cached file cannot be read: %s", error)
            return None
        digest, content = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        if digest != _digest(name, content):
            log.warning("cached file %s is damaged and is made again", path.name)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            # Its time of change is when it was used last, which is what `shrink` sorts by.
            os.utime(path)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep bytes under a name, unless the disk has no room; says so once."""
        if not self._writes:
            return
        path = self._place / name
        temporary = path.with_name(f".{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            facts = os.statvfs(path.parent)
            if facts.f_bavail * facts.f_frsize < self._keep_free + len(content):
                raise OSError(f"less than {self._keep_free:,} bytes would stay free")
            temporary.write_bytes(_digest(name, content) + content)
            temporary.replace(path)
        except OSError as error:
            # Also a read-only or a broken disk: the work goes on, and makes it again next time.
            self._writes = False
            log.warning("nothing more is kept in %s: %s", self._place, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def shrink(place: Path, maximum_bytes: int) -> tuple[int, int, int]:
    """Delete the files used longest ago until the others fit, and what was half written a day ago; returns how many
    files and bytes went, and the bytes that stay."""
    now, kept = time.time(), list[tuple[float, int, Path]]()
    count = size = 0
    for path, facts in walk(place):
        if not stat.S_ISREG(facts.st_mode):
            continue
        if path.name.startswith("."):
            if now - facts.st_mtime > _UNFINISHED_SECONDS:
                path.unlink(missing_ok=True)
                count, size = count + 1, size + facts.st_size
            continue
        kept.append((facts.st_mtime, facts.st_size, path))
    total = sum(one[1] for one in kept)
    for _, bytes_, path in sorted(kept):
        if total <= maximum_bytes:
            break
        path.unlink(missing_ok=True)
        count, size, total = count + 1, size + bytes_, total - bytes_
    return count, size, total


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + content).digest()
