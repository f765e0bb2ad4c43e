"""How folders of photos are laid out: with `.txt` captions, as Hugging Face's image folders, or as kohya's scripts.

A plain folder has photos, and beside any of them a `.txt` file of its name with its caption. An image folder has a
`metadata.jsonl`. kohya's has folders `REPEATS_IDENTIFIER CLASS`, or is described by a TOML file with `[[datasets]]` and
`[[datasets.subsets]]` (its docs/config_README-en.md); of that, what Darkroom's own options decide is left out by name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from storage.errors import DarkroomError, InvalidRequest
from storage.records.jobs.photo_metadata import MAX_CAPTION, MAX_REPEATS, read_metadata

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
METADATA = "metadata.jsonl"
_KOHYA_FOLDER = re.compile(r"(\d+)_(\S.*)")
_SUBSET_FIELDS = frozenset({"image_dir", "num_repeats", "class_tokens", "caption_extension", "is_reg"})


class NoPhotos(DarkroomError):
    """Nothing to upload."""

    code = "no_photos"


@dataclass(frozen=True)
class Photo:
    """A photo to upload. `name` is unique among them; `repeats` counts how often it comes in a pass."""

    path: Path
    name: str
    caption: str = ""
    repeats: int = 1


@dataclass(frozen=True)
class PhotoLayout:
    """What a place holds. `left_out` says what is not taken, and why.

    `tokens` is what kohya's layout says that all of it shows, such as `sks dog`; empty if it does not.
    """

    photos: tuple[Photo, ...]
    left_out: tuple[str, ...] = ()
    tokens: str = ""


def read_layout(place: Path) -> PhotoLayout | None:
    """The photos of a place in a layout that says something of them; None for a plain folder, file or archive.

    Raises NoPhotos where the layout is broken, with the line or the file at fault.
    """
    if place.is_file():
        return _kohya_file(place) if place.suffix.lower() == ".toml" else None
    if not place.is_dir():
        return None
    for folder in (place, place / "train"):
        if (folder / METADATA).is_file():
            return _image_folder(folder)
    subsets = [(path, match) for path in sorted(place.iterdir()) if (match := _KOHYA_FOLDER.fullmatch(path.name))]
    subsets = [(path, match) for path, match in subsets if path.is_dir()]
    if not subsets:
        return None
    others = {path.name for path in place.iterdir() if path.name[0] != "."} - {path.name for path, _ in subsets}
    left_out = tuple(f"{name} is not named like 10_sks mug, as other folders here are" for name in sorted(others))
    return _kohya([_Subset(path, int(match[1]), match[2], ".txt") for path, match in subsets], left_out)


def caption_beside(photo: Path, extension: str = ".txt") -> str:
    """The caption in a file of the photo's name; empty without one. Raises NoPhotos for one that is no text."""
    file = photo.with_suffix(extension)
    if not file.is_file() and extension == ".txt":
        file = photo.with_suffix(".caption")  # kohya's own default
    if not file.is_file():
        return ""
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise NoPhotos(f"{file} is not UTF-8 text. Save the caption again as UTF-8.") from error
    if len(text) > MAX_CAPTION:
        raise NoPhotos(f"{file} has {len(text):,} characters; a caption has {MAX_CAPTION:,} at most.")
    return text


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder by name, not of folders inside it."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)


@dataclass(frozen=True)
class _Subset:
    folder: Path
    repeats: int
    tokens: str
    extension: str


def _image_folder(folder: Path) -> PhotoLayout:
    file = folder / METADATA
    try:
        lines = read_metadata(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NoPhotos(f"{file} is not UTF-8 text. Save it again as UTF-8.") from error
    except InvalidRequest as error:
        raise NoPhotos(f"{file}, {error.fields['metadata']}") from error
    photos: list[Photo] = []
    for line in lines.values():
        path = folder / line.file_name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise NoPhotos(f"{file} names '{line.file_name}', which is not inside {folder}.")
        if not path.is_file():
            raise NoPhotos(f"{file} names '{line.file_name}', which is not there. Take its line out, or add the file.")
        photos.append(Photo(path, line.file_name.replace("/", "-"), line.words, line.repeats))
    named = {photo.path.resolve() for photo in photos}
    others = [path.name for path in photos_in(folder) if path.resolve() not in named]
    return PhotoLayout(tuple(photos), tuple(f"{name} has no line in {METADATA}" for name in others))


def _kohya(subsets: list[_Subset], left_out: tuple[str, ...] = ()) -> PhotoLayout:
    photos: list[Photo] = []
    for number, subset in enumerate(subsets):
        if not 1 <= subset.repeats <= MAX_REPEATS:
            raise NoPhotos(f"{subset.folder} says {subset.repeats} repeats; they are 1 to {MAX_REPEATS:,}.")
        # A name of its own for each: two folders may both have an image `1.png`.
        before = f"{number + 1}-" if len(subsets) > 1 else ""
        photos += [
            Photo(path, before + path.name, caption_beside(path, subset.extension), subset.repeats)
            for path in photos_in(subset.folder)
        ]
    tokens = {subset.tokens for subset in subsets}
    return PhotoLayout(tuple(photos), left_out, tokens.pop() if len(tokens) == 1 else "")


def _kohya_file(file: Path) -> PhotoLayout:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NoPhotos(f"{file} is not TOML: {error}. It needs [[datasets]] with [[datasets.subsets]].") from error
    subsets: list[_Subset] = []
    left_out: set[str] = set()
    for settings in _subsets_of(content):
        others = settings.keys() - _SUBSET_FIELDS - {"subsets"}
        left_out |= {f"{name}, a setting that Darkroom has options of its own for" for name in others}
        name = settings.get("image_dir")
        if not isinstance(name, str) or not (file.parent / name).is_dir():
            raise NoPhotos(f"{file} has a subset with image_dir {name!r}, which is no folder.")
        if settings.get("is_reg"):
            # Class images are drawn by the base model itself, which is what holds its prior.
            left_out.add(f"{name}: class images are drawn by the base model")
            continue
        repeats, extension = settings.get("num_repeats", 1), str(settings.get("caption_extension", ".caption"))
        if type(repeats) is not int:
            raise NoPhotos(f"{file} says num_repeats {repeats!r} of {name}; it is a whole number.")
        tokens = str(settings.get("class_tokens", ""))
        subsets.append(_Subset(file.parent / name, repeats, tokens, "." + extension.lstrip(".")))
    return _kohya(subsets, tuple(sorted(left_out)))


def _subsets_of(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each subset with what its data set and the whole file say for it: the innermost counts."""
    for data_set in _tables(content.get("datasets")):
        for subset in _tables(data_set.get("subsets")):
            yield {**_table(content.get("general")), **data_set, **subset}


def _tables(value: object) -> list[dict[str, Any]]:
    return [_table(one) for one in cast(list[object], value)] if isinstance(value, list) else []


def _table(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
