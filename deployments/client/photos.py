"""Photos on this machine, and their way to the API."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from deployments.client.api import Api
from deployments.client.photo_layouts import SUFFIXES, NoPhotos, Photo, PhotoLayout, caption_beside, read_layout
from deployments.client.responses import DataSetResponse
from storage.records.jobs.photo_metadata import PhotoMetadata, write_metadata

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
ARCHIVE = ".zip"
_ADVICE = "Put 3 to 6 photos of one subject there, from different sides and in different places."


def find_photos(place: Path, maximum: int) -> PhotoLayout:
    """The photos of a folder in any layout (see photo_layouts), of a kohya TOML file, or one zip archive or photo.

    Of a plain folder those in it, not in folders inside it. Raises NoPhotos.
    """
    if not place.exists():
        raise NoPhotos(f"there is no {place}. Give a folder with 3 to 6 photos of one subject.")
    found = read_layout(place) or _plain(place)
    if not found.photos:
        known = ", ".join(sorted({*SUFFIXES, ARCHIVE}))
        raise NoPhotos(f"no photos in {place}: files ending in {known} are taken. {_ADVICE}")
    if len(found.photos) > maximum:
        raise NoPhotos(f"{len(found.photos):,} files in {place}; the limit is {maximum:,}. 3 to 6 photos work best.")
    return found


def _plain(place: Path) -> PhotoLayout:
    files = sorted(path for path in place.iterdir() if path.name[0] != ".") if place.is_dir() else [place]
    taken = [path for path in files if path.is_file() and path.suffix.lower() in {*SUFFIXES, ARCHIVE}]
    photos = [Photo(path, path.name, "" if path.suffix.lower() == ARCHIVE else caption_beside(path)) for path in taken]
    read = {photo.path.with_suffix(".txt") for photo in photos if photo.caption}
    left_out = (path.name for path in files if path not in taken and path not in read)
    return PhotoLayout(tuple(photos), tuple(f"{name} is not a photo or a zip archive" for name in left_out))


def upload_photos(api: Api, name: str, photos: Sequence[Photo]) -> DataSetResponse:
    """Make a data set of the photos. Raises ApiRefusal naming the photo at fault, ApiUnreachable."""
    said = [
        PhotoMetadata(file_name=photo.name, text=photo.caption, repeats=photo.repeats)
        for photo in photos
        if photo.caption or photo.repeats > 1
    ]
    fields = {"name": name} | ({"metadata": write_metadata(said)} if said else {})
    with contextlib.ExitStack() as stack:
        parts = [
            (
                "files",
                (
                    photo.name,
                    stack.enter_context(photo.path.open("rb")),
                    TYPES.get(photo.path.suffix.lower(), "application/zip"),
                ),
            )
            for photo in photos
        ]
        return api.post("/api/v1/data-sets", DataSetResponse, data=fields, files=parts)
