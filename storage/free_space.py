"""How much room is left on this machine's disks, and the floor under which nothing new is taken."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from storage.errors import FreeSpaceLow
from storage.records.accounts.quotas import in_units
from storage.settings import Settings

log = logging.getLogger("darkroom.free_space")

KEPT_SECONDS = 1.0


@dataclass(frozen=True)
class Volume:
    """A place on a disk of this machine. `name` is what callers read; they never read the folder."""

    name: str
    folder: Path

    def free(self) -> int:
        """Bytes that we may still write there, or where it will be."""
        found = os.statvfs(self._existing())
        # Not f_bfree: that counts the blocks that the file system keeps for root, too.
        return found.f_bavail * found.f_frsize

    def device(self) -> int:
        """The system's number of the disk: two volumes of one number share its room."""
        return os.stat(self._existing()).st_dev

    def _existing(self) -> Path:
        # Before the first upload the folder is not there yet; the nearest folder above it lies on the same disk.
        folder = self.folder
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return folder


def volumes(settings: Settings) -> tuple[Volume, ...]:
    """Where this machine keeps what is uploaded and made: blobs unless they are elsewhere, uploads, Postgres if it is
    the embedded one."""
    found = [Volume("uploads", settings.model_uploads_folder)]
    blobs = urlsplit(settings.blobs.url)
    if blobs.scheme in ("", "file", "local"):
        found.append(Volume("blobs", Path(unquote(blobs.path))))
    postgres = settings.data_folder / "postgres"
    # Quoted as embedded_postgres_url writes it. A Postgres that is reached over TCP may be on another machine's disk.
    if quote(str(postgres), safe="/") in settings.postgres.url.get_secret_value():
        found.append(Volume("database", postgres))
    return tuple(found)


@dataclass(frozen=True)
class Shortage:
    """A volume with less free bytes than the floor."""

    volume: Volume
    free: int
    floor: int

    def __str__(self) -> str:
        """What callers read of it."""
        return (
            f"Only {in_units(self.free)} are free on the disk of the {self.volume.name}; {in_units(self.floor)} must "
            "stay free. Uploads and new jobs are taken again when the operator has made room; everything else works."
        )


VOLUMES = ("uploads", "blobs", "database")
"""The names that a volume may have."""


def shortage(settings: Settings, names: Collection[str] = VOLUMES) -> Shortage | None:
    """The first disk of these volumes that has less room than the floor; None when all have enough."""
    floor = settings.quotas.free_space_bytes
    for volume in volumes(settings) if floor else ():
        if volume.name not in names:
            continue
        free = volume.free()
        if free < floor:
            return Shortage(volume, free, floor)
    return None


def check_free_space(settings: Settings) -> None:
    """Raises FreeSpaceLow when a disk has less room than the floor."""
    if found := shortage(settings):
        raise FreeSpaceLow(str(found))


class FreeSpace:
    """The same for the API: asked with every piece that arrives, looked at once a second, logged when it changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept_until = 0.0
        self._found: Shortage | None = None

    async def check(self) -> None:
        """Raises FreeSpaceLow."""
        if time.monotonic() >= self._kept_until:
            # Set before the look: whoever asks meanwhile gets what was found last, and takes no thread.
            self._kept_until = time.monotonic() + KEPT_SECONDS
            # In a thread: statvfs waits for a network disk that does not respond.
            found = await asyncio.to_thread(shortage, self._settings)
            # Only the change is logged: under the floor every piece of every upload asks.
            if bool(found) != bool(self._found):
                _log_change(found)
            self._found = found
        if self._found is not None:
            raise FreeSpaceLow(str(self._found))


def _log_change(found: Shortage | None) -> None:
    if found is None:
        log.info("there is room again: uploads and new jobs are taken")
        return
    volume = found.volume
    log.warning("%s: %d bytes are free in %s; the floor is %d", *(volume.name, found.free, volume.folder, found.floor))
