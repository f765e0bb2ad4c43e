"""Folders of blobs that this machine keeps a copy of: made when first asked for, deleted when there are too many.

Whoever uses a folder holds a lock on it, which ends when it leaves the folder, or with the process, however that ends.
The lock is the kernel's (`flock` on the folder itself), so no file says that a folder is in use when nobody uses it any
more. A folder is first renamed and then deleted, under the lock that nobody else may hold: it is there whole or not at
all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from storage.blobs.disks import is_at
from storage.blobs.store import BlobStore
from storage.blobs.walks import size_of, written_at
from storage.errors import StoreUnavailable

TRIES = 5
_held: dict[Path, int] = {}
"""The folders that this process uses, each with the open descriptor that holds its lock."""


@dataclass(frozen=True)
class CachedFolder:
    """A folder of the cache: its bytes, and how long ago it was used last, in seconds."""

    path: Path
    size: int
    idle_seconds: float


def use(blobs: BlobStore, files: Mapping[str, str], folder: Path) -> Path:
    """A folder with these files (path inside it to SHA-256), in use by this process from now on until it ends.

    Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        blobs.fetch_folder(files, folder)
        if folder in _held or _hold(folder):
            # Its time of change is when it was used last, which is what `folders` sorts by.
            os.utime(folder)
            return folder
    raise StoreUnavailable(f"{folder} was deleted again and again while it was made. Try again in a few seconds.")


def leave(folder: Path) -> None:
    """Use a folder no longer: what was read of it is in memory. Call it where nothing else in this process uses it."""
    descriptor = _held.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def _hold(folder: Path) -> bool:
    """Hold the lock of a folder; False when the folder was deleted before it was held."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    # Waits while somebody deletes the folder; the look afterwards finds out whether that is what happened.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not is_at(descriptor, folder):
        os.close(descriptor)
        return False
    # Closed by `leave`, or else by the kernel when the process ends.
    _held[folder] = descriptor
    return True


def folders(place: Path) -> list[CachedFolder]:
    """The whole folders in a place of the cache, the one used longest ago first."""
    now, found = time.time(), list[CachedFolder]()
    for entry in place.iterdir() if place.exists() else ():
        # A dot begins what is still being made, or being deleted.
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        with suppress(FileNotFoundError):  # somebody deletes it at this moment
            # A clock that went back makes nothing older: what was used in the future was used just now.
            found.append(CachedFolder(entry, size_of(entry), max(0.0, now - entry.stat().st_mtime)))
    return sorted(found, key=lambda folder: -folder.idle_seconds)


def remove_unless_used(folder: Path) -> bool:
    """Delete a folder of the cache that no process uses; returns whether it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not is_at(descriptor, folder):
            return True
        dropped = folder.with_name(f".dropped.{uuid4().hex}")
        folder.rename(dropped)
        shutil.rmtree(dropped, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)


def remove_unfinished(place: Path, older_than_seconds: float) -> int:
    """Delete what was half made or half deleted when its process died; returns how many."""
    now, removed = time.time(), 0
    for entry in place.iterdir() if place.exists() else ():
        written = written_at(entry) if entry.name.startswith(".") else None
        if written is not None and now - written > older_than_seconds:
            shutil.rmtree(entry, ignore_errors=True)
            removed += 1
    return removed
