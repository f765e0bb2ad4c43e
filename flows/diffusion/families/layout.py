"""What a model family's folder looks like on disk, so that it can be checked before anything in it is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage.errors import WeightsRefused

INDEX_SUFFIX = ".index.json"
"""What follows a weights file's name in the name of the index that lists its shards."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*\.safetensors")


class ShardIndex(msgspec.Struct, frozen=True):
    """The index of a weights file that was written in shards: which of them holds each tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class Component:
    """One folder that a family needs: the classes it may be of, its weights file, and the tensors that one may hold."""

    classes: frozenset[str]
    weights: str | None = None
    tensors: re.Pattern[str] | None = None


@dataclass(frozen=True)
class FamilyLayout:
    """What the folder of a model family looks like: the pipelines it may be of, and its components by their folders."""

    pipelines: frozenset[str]
    components: Mapping[str, Component]

    @property
    def weight_files(self) -> dict[str, str]:
        """Component to its weights file inside a model folder."""
        return {name: f"{name}/{one.weights}" for name, one in sorted(self.components.items()) if one.weights}

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The components that encode prompts, in the order in which the family reads them."""
        return tuple(name for name, one in self.components.items() if name.startswith("text_encoder") and one.weights)

    def missing_weights(self, folder: Path) -> list[str]:
        """Paths inside the folder of weights that are not there, shards among them. Raises WeightsRefused."""
        files = (file for name in self.weight_files.values() for file in weight_files_of(folder / name))
        return [str(file.relative_to(folder)) for file in files if not file.is_file()]


def weight_files_of(file: Path) -> tuple[Path, ...]:
    """The weights file itself, or the shards that an index beside it names, sorted; they need not exist.

    Raises WeightsRefused for an index that cannot be read.
    """
    index = index_of(file)
    if file.is_file() or not index.is_file():
        return (file,)
    return tuple(file.with_name(name) for name in sorted(set(read_index(index).weight_map.values())))


def index_of(file: Path) -> Path:
    """Where the index of a weights file's shards is, if it has any."""
    return file.with_name(file.name + INDEX_SUFFIX)


def read_index(path: Path) -> ShardIndex:
    """The index at `path`. Raises WeightsRefused when it is none, or names a file that is not beside it."""
    called = f"{path.parent.name}/{path.name}"
    try:
        index = msgspec.json.decode(path.read_bytes(), type=ShardIndex)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsRefused("index", f"{called} is no index of shards: {error}. Get the file again.") from error
    for shard in _odd_names(index.weight_map.values()):
        raise WeightsRefused("index", f"{called} names '{shard[:80]}', which is no safetensors file beside it.")
    if not index.weight_map:
        raise WeightsRefused("index", f"{called} names no tensor. Get the file again.")
    return index


def _odd_names(names: Iterable[str]) -> list[str]:
    return sorted(name for name in set(names) if not _PLAIN_NAME.fullmatch(name))
