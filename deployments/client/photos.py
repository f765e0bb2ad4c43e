"""Photos on this machine or wherever fsspec reads, and their way to the API."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.client.api import Api
from deployments.client.remote_photos import ARCHIVE, fetch_photos, is_url, name_of, shown
from deployments.client.remote_reads import NoPhotos
from deployments.client.responses import DataSetResponse
from storage.blobs.archives import ArchiveLimits, unpack_photos
from storage.errors import ArchiveRefused
from storage.records.jobs.photos.captions import Caption, caption_beside
from storage.records.jobs.photos.photo_layouts import (
    DESCRIPTION,
    MEDIA_TYPES,
    SUFFIXES,
    PhotoLayout,
    PlacedPhoto,
    at_most,
    read_description,
    read_files,
    read_layout,
)
from storage.records.jobs.photos.photo_metadata import PhotoMetadata, write_metadata
from storage.records.jobs.photos.photo_places import FolderPlace, ListedFiles, PhotoPlace
from storage.settings import UploadSettings

_ADVICE = "Put 3 to 6 photos of one subject there, from different sides and in different places."


@dataclass(frozen=True)
class Photo:
    """A photo to upload. `name` is unique among them; `repeats` counts how often it comes in a pass. `whole_prompt`:
    the caption is its prompt as it stands."""

    path: Path
    name: str
    caption: str = ""
    repeats: int = 1
    whole_prompt: bool = False


@dataclass(frozen=True)
class FoundPhotos:
    """What a place holds. `left_out` says what is not taken, and why; `subjects` is what kohya's layout says that its
    parts show, such as `sks dog`, each once. `name` is what the data set is called."""

    name: str
    photos: tuple[Photo, ...]
    left_out: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


def find_photos(place: str, limits: UploadSettings) -> FoundPhotos:
    """The photos of a folder in any layout (see photo_layouts), of a kohya TOML file or of a zip archive, or one photo:
    on this machine, or at a URL that fsspec reads. What is fetched or unpacked for it goes with what is returned.

    Of a plain folder of this machine those in it, not in folders inside it. Raises NoPhotos, UploadRefused.
    """
    folder = Path(tempfile.mkdtemp(prefix="darkroom-photos-"))
    try:
        if is_url(place):
            name, found, called = name_of(place), _remote(place, folder, limits), shown(place)
        else:
            here = Path(re.sub("^(file|local)://", "", place))
            name, found, called = here.resolve().stem, _local(here, folder, limits), str(here)
        if not found.photos:
            known = ", ".join(sorted({*SUFFIXES, ARCHIVE}))
            raise NoPhotos(f"no photos in {called}: files ending in {known} are taken. {_ADVICE}")
        if len(found.photos) > limits.max_images:
            raise NoPhotos(
                f"{len(found.photos):,} files in {called}; the limit is {limits.max_images:,}. 3 to 6 photos work best."
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    found = replace(found, name=name)
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def upload_photos(api: Api, name: str, photos: Sequence[Photo]) -> DataSetResponse:
    """Make a data set of the photos. Raises ApiRefusal naming the photo at fault, ApiUnreachable."""
    said = [
        PhotoMetadata(file_name=photo.name, text=photo.caption, repeats=photo.repeats, whole_prompt=photo.whole_prompt)
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
                    MEDIA_TYPES.get(Path(photo.name).suffix.lower(), "application/zip"),
                ),
            )
            for photo in photos
        ]
        return api.post("/api/v1/data-sets", DataSetResponse, data=fields, files=parts)


def _local(place: Path, folder: Path, limits: UploadSettings) -> FoundPhotos:
    if not place.exists():
        raise NoPhotos(f"there is no {place}. Give a folder with 3 to 6 photos of one subject.")
    if place.is_dir():
        here = FolderPlace(place)
        return _found(here, read_layout(here, limits.max_images) or _plain(here))
    here = FolderPlace(place.parent)
    if place.suffix.lower() == DESCRIPTION:
        return _found(here, read_description(here, place.name, limits.max_images))
    if place.suffix.lower() == ARCHIVE:
        return _unpacked(place, place.name, folder, limits)
    taken = place.is_file() and place.suffix.lower() in SUFFIXES
    if not taken:
        return _found(here, PhotoLayout(()))
    caption = caption_beside(here, place.name)
    return _found(here, PhotoLayout((PlacedPhoto(place.name, place.name, caption.text),), caption.left_out))


def _remote(url: str, folder: Path, limits: UploadSettings) -> FoundPhotos:
    fetched = fetch_photos(url, folder, limits)
    if fetched.archive is None:
        files, most = fetched.files, limits.max_images
        named = fetched.description
        return _found(files, read_description(files, named, most) if named else read_files(files, most))
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    return _unpacked(fetched.archive, fetched.files.name, unpacked, limits, fetched.inside)


def _unpacked(archive: Path, name: str, folder: Path, limits: UploadSettings, inside: str = "") -> FoundPhotos:
    """The photos of an archive, or of a folder of it or one file of it (`inside`)."""
    bounds = ArchiveLimits(limits.max_images, limits.max_image_bytes, limits.max_unpacked_bytes)
    try:
        files = unpack_photos(archive, folder, bounds)
    except ArchiveRefused as refusal:
        raise ArchiveRefused(refusal.reason, f"{name}: {refusal}") from refusal
    paths = {file.name: file.path for file in files}
    if inside:
        paths = {
            path.removeprefix(f"{inside}/") if path != inside else path.rsplit("/", 1)[-1]: file
            for path, file in paths.items()
            if path == inside or path.startswith(f"{inside}/")
        }
    place = ListedFiles(name, paths)
    return _found(place, read_files(place, limits.max_images))


def _plain(place: FolderPlace) -> PhotoLayout:
    files = [name for name in place.files("") if name[0] != "."]
    taken = [name for name in files if Path(name).suffix.lower() in {*SUFFIXES, ARCHIVE}]
    photos: list[PlacedPhoto] = []
    read = set(taken)
    more_lines: list[str] = []
    for name in taken:
        # The API reads what captions an archive has.
        caption = Caption() if Path(name).suffix.lower() == ARCHIVE else caption_beside(place, name)
        photos.append(PlacedPhoto(name, name, caption.text))
        read.add(caption.file)
        more_lines += caption.left_out
    others = sorted(name for name in (*files, *place.folders("")) if name not in read and name[0] != ".")
    reasons = at_most([f"{name} is not a photo or a zip archive" for name in others])
    return PhotoLayout(tuple(photos), (*reasons, *at_most(more_lines)))


def _found(place: PhotoPlace, layout: PhotoLayout) -> FoundPhotos:
    photos = tuple(
        Photo(place.local(one.path), one.name, one.caption, one.repeats, one.whole_prompt) for one in layout.photos
    )
    # Names from elsewhere are shown in a terminal, which would obey what is hidden in them.
    left_out = tuple(_printable(reason) for reason in layout.left_out)
    return FoundPhotos("", photos, left_out, tuple(_printable(one) for one in layout.subjects))


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
