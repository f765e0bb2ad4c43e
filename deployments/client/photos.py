"""A folder of photos on this machine, and its way to the API."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.client.api import Api
from deployments.client.responses import DataSetResponse
from storage.errors import DarkroomError

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
ARCHIVE = ".zip"


class NoPhotos(DarkroomError):
    """Nothing to upload."""

    code = "no_photos"


@dataclass(frozen=True)
class Photos:
    """The files to upload, and those in the folder that are no photos."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


def find_photos(place: Path, maximum: int) -> Photos:
    """The photos in a folder (not in folders inside it), or one zip archive or photo. Raises NoPhotos."""
    if not place.exists():
        raise NoPhotos(f"there is no {place}. Give a folder with 3 to 6 photos of one subject.")
    known = {*TYPES, ARCHIVE}
    files = sorted(path for path in place.iterdir() if path.name[0] != ".") if place.is_dir() else [place]
    photos = [path for path in files if path.is_file() and path.suffix.lower() in known]
    if not photos:
        raise NoPhotos(
            f"no photos in {place}: files ending in {', '.join(sorted(known))} are taken. "
            "Put 3 to 6 photos of one subject there, from different sides and in different places."
        )
    if len(photos) > maximum:
        raise NoPhotos(f"{len(photos):,} files in {place}; the limit is {maximum:,}. 3 to 6 photos work best.")
    return Photos(tuple(photos), tuple(path for path in files if path not in photos))


def upload_photos(api: Api, name: str, files: Sequence[Path]) -> DataSetResponse:
    """Make a data set of the files. Raises ApiRefusal naming the photo at fault, ApiUnreachable."""
    with contextlib.ExitStack() as stack:
        parts = [
            (
                "files",
                (path.name, stack.enter_context(path.open("rb")), TYPES.get(path.suffix.lower(), "application/zip")),
            )
            for path in files
        ]
        return api.post("/api/v1/data-sets", DataSetResponse, data={"name": name}, files=parts)
