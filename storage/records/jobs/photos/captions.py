"""Captions in files beside photos, and the texts that describe a layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from storage.errors import UploadRefused
from storage.records.jobs.photos.photo_metadata import MAX_CAPTION
from storage.records.jobs.photos.photo_places import PhotoPlace, joined


@dataclass(frozen=True)
class Caption:
    """What a file beside a photo says of it. `file`: its name; `left_out`: what of it is not taken, and why."""

    text: str = ""
    file: str = ""
    left_out: tuple[str, ...] = ()


def caption_beside(place: PhotoPlace, photo: str, extension: str = ".txt") -> Caption:
    """The caption in a file of the photo's name: its first line that is not empty, as kohya's scripts take it. Empty
    without such a file. Raises UploadRefused for one that is no text."""
    folder, photo_name = split(photo)
    # The second is kohya's own default.
    extensions = (".txt", ".caption") if extension == ".txt" else (extension,)
    names = [PurePosixPath(photo_name).stem + one for one in extensions]
    name = next((one for one in names if place.has_file(joined(folder, one))), "")
    if not name:
        return Caption()
    path = joined(folder, name)
    lines = [" ".join(line.split()) for line in read_text(place, path, "Save the caption again as UTF-8.").split("\n")]
    text, *others = [line for line in lines if line] or [""]
    if len(text) > MAX_CAPTION:
        raise broken(f"{place.called(path)} has {len(text):,} characters; a caption has {MAX_CAPTION:,} at most.")
    if not text.isprintable():
        raise broken(f"{place.called(path)} holds control characters. Take them out.")
    left_out = (f"{path}: the lines behind its first one, which is the caption",) if others else ()
    return Caption(text, name, left_out)


def read_text(place: PhotoPlace, path: str, advice: str) -> str:
    """A file's text. Raises UploadRefused with the advice where it is not UTF-8."""
    try:
        return place.local(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise broken(f"{place.called(path)} is not UTF-8 text. {advice}") from error


def split(path: str) -> tuple[str, str]:
    """A path's folder, and its name there."""
    folder, _, name = path.rpartition("/")
    return folder, name


def broken(message: str) -> UploadRefused:
    """The refusal of a layout that is at fault."""
    return UploadRefused("broken_layout", message)
