"""A base model folder in diffusers layout: which of its files the platform takes, and why a folder is refused.

Nothing in it is run or loaded: JSON is parsed, weights are read by their headers. Only safetensors pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.base_models.cards import CARD, read_card, read_json
from deployments.base_models.components import (
    FLOATS,
    check_weight_files,
    refuse_wrong_components,
    refuse_wrong_pipeline,
    weights_of,
)
from flows.diffusion.families.layout import INDEX_SUFFIX, FamilyLayout
from flows.diffusion.families.lookup import family_named
from storage.blobs.other_formats import CONVERT_FOLDER, PICKLE_SUFFIXES
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.base_models import BaseModelCard

MAX_FILES = 500
CODE = frozenset({".py", ".pyc", ".so", ".dll", ".sh", ".exe"})
TEXTS = frozenset({".json", ".txt", ".md"})
JUDGE = "judge"

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True)
class BaseFolder:
    """A folder that passed: the paths inside it that are taken, and those that the platform does not need."""

    path: Path
    card: BaseModelCard
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def check_base_folder(folder: Path) -> BaseFolder:
    """What a base model folder holds. Raises WeightsRefused with what to do about it."""
    if not folder.is_dir():
        raise WeightsRefused("no_folder", f"{folder} is not a folder. Give a model folder in diffusers layout.")
    if not (folder / "model_index.json").is_file():
        raise WeightsRefused(
            "no_index",
            f"{folder} has no model_index.json, so it is not in diffusers layout. A single .safetensors file is added "
            "by itself, with the configs of such a folder: darkroom base add FILE --config FOLDER --name NAME",
        )
    paths = tuple(sorted(_walk(folder)))
    index = read_json(folder, "model_index.json")
    named = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    card = read_card(folder)
    family = family_named(card.family)
    layout = family.layout
    refuse_wrong_pipeline(index, card, layout)
    refuse_wrong_components(folder, index, layout)
    _refuse_pickles(paths, layout)
    weights = weights_of(folder, layout)
    taken = tuple(path for path in paths if _is_taken(path, named | {JUDGE}, layout, weights))
    check_weight_files(folder, family)
    _check_others(folder, [path for path in taken if path not in weights])
    return BaseFolder(folder, card, taken, tuple(path for path in paths if path not in taken))


def shipped_folder(folder: Path) -> BaseFolder:
    """A folder that comes with the project, whose tests have checked it. Nothing heavy is imported: it is the family
    that knows what its folders look like, and with it comes torch. Raises WeightsRefused."""
    taken, paths = TEXTS | {".safetensors"}, sorted(_walk(folder))
    files = tuple(path for path in paths if Path(path).suffix in taken or path.startswith("LICENSE"))
    return BaseFolder(folder, read_card(folder), files, tuple(path for path in paths if path not in files))


def _walk(folder: Path) -> Iterator[str]:
    """Every file's path inside the folder; hidden ones (.git, .gitattributes) are passed over."""
    count = 0
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        name = inside.as_posix()
        # A link may lead anywhere on this machine. Folders of the Hugging Face cache consist of links, so cp -L is
        # named.
        if path.is_symlink():
            raise WeightsRefused(
                "link", f"{name} is a link. Copy the folder with its files and give the copy: cp -rL {folder} COPY"
            )
        if path.is_dir():
            continue
        if not path.is_file() or not _PLAIN_PATH.fullmatch(name):
            raise WeightsRefused("file_name", f"{name!r} is not a plain file with a plain name. Take it out.")
        if path.suffix.lower() in CODE:
            raise WeightsRefused("code", f"{name} is code; a base model folder holds none. Take it out.")
        count += 1
        if count > MAX_FILES:
            raise WeightsRefused("too_many_files", f"{folder} holds more than {MAX_FILES} files. Is it a model folder?")
        yield name


def _refuse_pickles(paths: tuple[str, ...], layout: FamilyLayout) -> None:
    """Raises WeightsRefused for a pickle without a safetensors twin, which is read in its place."""
    for path in paths:
        if Path(path).suffix.lower() in PICKLE_SUFFIXES:
            part = path.rpartition("/")[0]
            whole = f"{part}/{_weights_name(part, layout)}"
            twins = {str(Path(path).with_suffix(".safetensors")), whole, whole + INDEX_SUFFIX}
            if twins.isdisjoint(paths):
                raise WeightsRefused("pickle", f"{path} is a pickle, which can run code. {CONVERT_FOLDER}")


def _is_taken(path: str, parts: set[str], layout: FamilyLayout, weights: frozenset[str]) -> bool:
    """Whether the platform needs the file."""
    if path in weights:
        return True
    part, _, name = path.rpartition("/")
    if not part:
        return name in ("model_index.json", CARD, "README.md") or name.startswith("LICENSE")
    if part.split("/")[0] not in parts:
        return False
    if name.endswith(".safetensors"):
        # Of a part that the family does not know, such as a safety checker, the one file that diffusers reads.
        return part == JUDGE or (part not in layout.components and name == "model.safetensors")
    return Path(name).suffix.lower() in TEXTS and not name.endswith(INDEX_SUFFIX)


def _weights_name(part: str, layout: FamilyLayout) -> str:
    known = layout.components.get(part)
    return (known.weights if known else None) or "model.safetensors"


def _check_others(folder: Path, files: Iterable[str]) -> None:
    """What is taken beside the family's own weights: JSON that is JSON, weights that are sound."""
    for path in files:
        if path.endswith(".safetensors"):
            check_weights(folder / path, dtypes=FLOATS, called=path)
        elif path.endswith(".json"):
            read_json(folder, path)
