"""How much room is left on this machine's disks, and the floor under which nothing new is taken."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from storage.errors import FreeSpaceLow
from storage.records.quotas import in_units
from storage.settings import Settings

log = logging.getLogger("darkroom.free_space")

KEPT_SECONDS = 1.0


@dataclass(frozen=True)
class Volume:
    """A place on a disk of this machine. `name` is what callers are told; they are not told the folder."""

    name: str
    folder: Path

    def free(self) -> int:
        """Bytes that we may still write there, or where it will be."""
        folder = self.folder
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize


def volumes(settings: Settings) -> tuple[Volume, ...]:
    """Where this machine keeps what is uploaded and made: blobs unless they are elsewhere, uploads, Postgres if it is
    the embedded one."""
    found = [Volume("uploads", settings.model_uploads_folder)]
    blobs = urlsplit(settings.blobs.url)
    if blobs.scheme in ("", "file", "local"):
        found.append(Volume("blobs", Path(unquote(blobs.path))))
    postgres = settings.data_folder / "postgres"
    if quote(str(postgres), safe="/") in settings.postgres.url.get_secret_value():
        found.append(Volume("database", postgres))
    return tuple(found)


def check_free_space(settings: Settings) -> None:
    """Raises FreeSpaceLow when a disk has less room than the floor."""
    floor = settings.quotas.free_space_bytes
    for volume in volumes(settings) if floor else ():
        free = volume.free()
        if free < floor:
            log.warning("%s: %d bytes are free in %s; the floor is %d", volume.name, free, volume.folder, floor)
            raise FreeSpaceLow(
                f"Only {in_units(free)} are free on the disk of the {volume.name}; {in_units(floor)} must stay free. "
                "Uploads and new jobs are taken again when the operator has made room; everything else works."
            )


class FreeSpace:
    """The same for the API: asked with every piece that arrives, looked at once a second."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._good_until = 0.0

    async def check(self) -> None:
        """Raises FreeSpaceLow."""
        if time.monotonic() >= self._good_until:
            await asyncio.to_thread(check_free_space, self._settings)
            self._good_until = time.monotonic() + KEPT_SECONDS
