"""How photos are laid out: with `.txt` captions, as Hugging Face's image folders, or as kohya's scripts have them.

A plain folder has photos, and beside any of them a `.txt` file of its name with its caption. An image folder has a
`metadata.jsonl`. kohya's has folders `REPEATS_IDENTIFIER CLASS`, or is described by a TOML file with `[[datasets]]` and
`[[datasets.subsets]]` (its docs/config_README-en.md); of that, what Darkroom's own options decide is left out by name.
All are read alike from a folder, from a zip archive and from another machine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any, cast

from storage.errors import InvalidRequest, UploadRefused
from storage.records.jobs.photos.captions import broken, caption_beside, read_text, split
from storage.records.jobs.photos.photo_metadata import MAX_CAPTION, MAX_REPEATS, read_metadata
from storage.records.jobs.photos.photo_places import ListedFiles, PhotoPlace, joined

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
"""Of photos, by the endings of their names."""
SUFFIXES = frozenset(MEDIA_TYPES)
METADATA = "metadata.jsonl"
DESCRIPTION = ".toml"
MAXIMUM_LEFT_OUT = 20
"""Files of one layout that are named as left out; the others are counted."""
_KOHYA_FOLDER = re.compile(r"(\d+)_(\S.*)")
_SUBSET_FIELDS = frozenset({"image_dir", "num_repeats", "class_tokens", "caption_extension", "is_reg"})


@dataclass(frozen=True)
class PlacedPhoto:
    """A photo of a place. `name` is unique among them; `repeats` counts how often it comes in a pass. `whole_prompt`:
    the caption is its prompt as it stands."""

    path: str
    name: str
    caption: str = ""
    repeats: int = 1
    whole_prompt: bool = False


@dataclass(frozen=True)
class PhotoLayout:
    """What a place holds. `left_out` says what is not taken, and why.

    `subjects` is what kohya's layout says that its parts show, such as `sks dog`, each once; an empty one for parts
    that it says nothing of.
    """

    photos: tuple[PlacedPhoto, ...]
    left_out: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    @property
    def tokens(self) -> str:
        """What all of it shows; empty where that is not said, or is not one."""
        return self.subjects[0] if len(self.subjects) == 1 else ""


def read_layout(place: PhotoPlace, maximum: int, folder: str = "") -> PhotoLayout | None:
    """The photos of a folder in a layout that says something of them; None for a plain one.

    Raises UploadRefused where the layout is broken, with the line or the file at fault, and where kohya's names more
    than `maximum` photos or subsets: each subset may name every photo again.
    """
    for within in (folder, joined(folder, "train")):
        if place.has_file(joined(within, METADATA)):
            return _image_folder(place, within)
    folders = place.folders(folder)
    named = [(name, match) for name in folders if (match := _KOHYA_FOLDER.fullmatch(name))]
    if not named:
        return None
    others = {name for name in (*folders, *place.files(folder)) if name[0] != "."} - {name for name, _ in named}
    left_out = (f"{name} is not named like 10_sks mug, as other folders here are" for name in sorted(others))
    subsets = [_Subset(joined(folder, name), int(match[1]), match[2], ".txt") for name, match in named]
    return _kohya(place, subsets, maximum, left_out)


def read_files(place: ListedFiles, maximum: int) -> PhotoLayout:
    """The photos of an archive, or of a folder of another machine: in a layout, described by kohya's TOML, or plain.

    Folders that hold one folder and nothing else are looked into first. Of plain ones all photos are taken, however
    deep. Raises UploadRefused as `read_layout`.
    """
    folder = ""
    while True:
        found = read_layout(place, maximum, folder) or _described(place, maximum, folder)
        if found is not None:
            return found
        folders = place.folders(folder)
        inside = joined(folder, folders[0]) if len(folders) == 1 else folder
        # The same again: what another machine lists may have parts such as `.`.
        if place.files(folder) or inside == folder:
            return _plain(place)
        folder = inside


def read_description(place: PhotoPlace, path: str, maximum: int) -> PhotoLayout:
    """The photos that a TOML file of kohya's scripts names. Raises UploadRefused as `read_layout`."""
    called, folder = place.called(path), str(PurePosixPath(path).parent)
    subsets: list[_Subset] = []
    content = _toml(place, path)
    left_out = {f"{name}, a setting that Darkroom has options of its own for" for name in _other_settings(content)}
    for number, settings in enumerate(_subsets_of(content), start=1):
        if number > maximum:
            raise UploadRefused("too_many_images", f"{called} has more than {maximum:,} subsets. Take fewer.")
        name = settings.get("image_dir")
        if not isinstance(name, str) or not place.has_folder(joined(folder, name)):
            raise broken(f"{called} has a subset with image_dir {name!r}, which is no folder.")
        if settings.get("is_reg"):
            # Class images are drawn by the base model itself, which is what holds its prior.
            left_out.add(f"{name}: class images are drawn by the base model")
            continue
        repeats, extension = settings.get("num_repeats", 1), str(settings.get("caption_extension", ".caption"))
        if type(repeats) is not int:
            raise broken(f"{called} says num_repeats {repeats!r} of {name}; it is a whole number.")
        tokens = str(settings.get("class_tokens", ""))
        if len(tokens) > MAX_CAPTION or not tokens.isprintable():
            raise broken(f"{called}: class_tokens of {name} may be {MAX_CAPTION:,} printable characters at most.")
        subsets.append(_Subset(joined(folder, name), repeats, tokens, "." + extension.lstrip(".")))
    return _kohya(place, subsets, maximum, sorted(left_out))


def photos_in(place: PhotoPlace, folder: str) -> list[str]:
    """The names of a folder's photos, not of those in folders inside it."""
    return [name for name in place.files(folder) if _suffix(name) in SUFFIXES]


def at_most(reasons: Iterable[str]) -> list[str]:
    """The first of many reasons, and how many more there are. The others are counted, and not kept."""
    one_by_one = iter(reasons)
    first = list(islice(one_by_one, MAXIMUM_LEFT_OUT))
    left = sum(1 for _ in one_by_one)
    return first + ([f"... and {left:,} more files like these"] if left else [])


@dataclass(frozen=True)
class _Subset:
    folder: str
    repeats: int
    tokens: str
    extension: str


def _image_folder(place: PhotoPlace, folder: str) -> PhotoLayout:
    called = place.called(joined(folder, METADATA))
    try:
        lines = read_metadata(read_text(place, joined(folder, METADATA), "Save it again as UTF-8."))
    except InvalidRequest as error:
        raise broken(f"{called}, {error.fields['metadata']}") from error
    photos: list[PlacedPhoto] = []
    for line in lines.values():
        inside = PurePosixPath(line.file_name)
        if inside.is_absolute() or ".." in inside.parts:
            raise broken(f"{called} names '{line.file_name}', which is not inside {place.called(folder)}.")
        path = joined(folder, line.file_name)
        if not place.has_file(path):
            raise broken(f"{called} names '{line.file_name}', which is not there. Take its line out, or add the file.")
        name = line.file_name.replace("/", "-")
        photos.append(PlacedPhoto(path, name, line.words, line.repeats, line.whole_prompt))
    named = {photo.path for photo in photos}
    others = [name for name in photos_in(place, folder) if joined(folder, name) not in named]
    return PhotoLayout(tuple(photos), tuple(at_most([f"{name} has no line in {METADATA}" for name in others])))


def _kohya(place: PhotoPlace, subsets: list[_Subset], maximum: int, left_out: Iterable[str]) -> PhotoLayout:
    photos: list[PlacedPhoto] = []
    more_lines: list[str] = []
    subjects = tuple(dict.fromkeys(subset.tokens for subset in subsets))
    # Subsets may name one folder again and again, and it may hold thousands of files.
    names_of = {folder: photos_in(place, folder) for folder in {subset.folder for subset in subsets}}
    read = {subset.folder: set(names_of[subset.folder]) for subset in subsets}
    for number, subset in enumerate(subsets):
        if not 1 <= subset.repeats <= MAX_REPEATS:
            raise broken(f"{place.called(subset.folder)} says {subset.repeats} repeats; they are 1 to {MAX_REPEATS:,}.")
        # A name of its own for each: two folders may both have an image `1.png`.
        before = f"{number + 1}-" if len(subsets) > 1 else ""
        if len(photos) + len(names_of[subset.folder]) > maximum:
            raise UploadRefused(
                "too_many_images",
                f"{place.called('')} names more than {maximum:,} photos, those that it names again counted each time.",
            )
        for name in names_of[subset.folder]:
            path = joined(subset.folder, name)
            caption = caption_beside(place, path, subset.extension)
            # Behind the job's own identifier, a second subject would be taught as the first.
            whole = len(subjects) > 1
            said = _whole_prompt(place.called(path), caption.text, subset.tokens) if whole else caption.text
            photos.append(PlacedPhoto(path, before + name, said, subset.repeats, whole and bool(said)))
            read[subset.folder].add(caption.file)
            more_lines += caption.left_out
    unused = chain.from_iterable(_unused(place, folder, names) for folder, names in read.items())
    # All subsets together, and each reason once.
    reasons = (*at_most(chain(left_out, unused)), *at_most(dict.fromkeys(more_lines)))
    return PhotoLayout(tuple(photos), reasons, subjects)


def _whole_prompt(photo: str, caption: str, tokens: str) -> str:
    """The prompt of one of several subjects: its caption, behind what its subset shows where it lacks that word."""
    own = tokens.partition(" ")[0]
    if not caption or not own or re.search(rf"(?<!\w){re.escape(own)}(?!\w)", caption, re.IGNORECASE):
        return caption or tokens
    if len(prompt := f"{tokens}, {caption}") > MAX_CAPTION:
        said = f"lacks '{own}', and has {len(prompt):,} characters with '{tokens}' before it"
        raise broken(f"The caption of {photo} {said}; a caption has {MAX_CAPTION:,} at most. Shorten it.")
    return prompt


def _unused(place: PhotoPlace, folder: str, read: Set[str]) -> Iterator[str]:
    """Why the files of a subset's folder that were not read are left out."""
    shown = folder.rpartition("/")[2]
    for name in place.files(folder):
        # The TOML file that named the folder may lie in it.
        if name not in read and name[0] != "." and _suffix(name) != DESCRIPTION:
            yield f"{joined(shown, name)} is neither a photo nor a caption of one"


def _described(place: PhotoPlace, maximum: int, folder: str) -> PhotoLayout | None:
    """The layout of the one TOML file in a folder; None where there is none."""
    files = [name for name in place.files(folder) if _suffix(name) == DESCRIPTION]
    if len(files) > 1:
        raise broken(f"{place.called(folder)} has {' and '.join(files[:3])}; leave the TOML file in that counts.")
    return read_description(place, joined(folder, files[0]), maximum) if files else None


def _plain(place: ListedFiles) -> PhotoLayout:
    paths = list(place.paths)
    photos = [path for path in paths if _suffix(path) in SUFFIXES]
    names = [split(path)[1] for path in photos]
    found: list[PlacedPhoto] = []
    read: set[str] = set(photos)
    more_lines: list[str] = []
    for path, name in zip(photos, names, strict=True):
        caption = caption_beside(place, path)
        read |= {joined(split(path)[0], caption.file)} if caption.file else set()
        found.append(PlacedPhoto(path, name if names.count(name) == 1 else path.replace("/", "-"), caption.text))
        more_lines += caption.left_out
    others = [f"{path} is neither a photo nor a caption" for path in paths if path not in read]
    return PhotoLayout(tuple(found), (*at_most(others), *at_most(more_lines)))


def _toml(place: PhotoPlace, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(place, path, "Save it again as UTF-8."))
    # ValueError also for a number of too many digits, RecursionError for what is nested without end.
    except (ValueError, RecursionError) as error:
        called = place.called(path)
        raise broken(f"{called} is not TOML: {error}. It needs [[datasets]] with [[datasets.subsets]].") from error


def _subsets_of(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each subset what its data set and the whole file say for it, too: the innermost counts."""
    for data_set in _tables(content.get("datasets")):
        for subset in _tables(data_set.get("subsets")):
            tables = (_table(content.get("general")), data_set, subset)
            # By our names: a file may have thousands of others, and as many subsets.
            yield {name: table[name] for table in tables for name in _SUBSET_FIELDS if name in table}


def _other_settings(content: Mapping[str, Any]) -> set[str]:
    data_sets = _tables(content.get("datasets"))
    subsets = [subset for data_set in data_sets for subset in _tables(data_set.get("subsets"))]
    names = set[str]().union(_table(content.get("general")), *data_sets, *subsets)
    return names - _SUBSET_FIELDS - {"subsets"}


def _tables(value: object) -> list[dict[str, Any]]:
    return [_table(one) for one in cast(list[object], value)] if isinstance(value, list) else []


def _table(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
