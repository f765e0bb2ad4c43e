"""What a finished training hands to publication: the files of a version, on this machine's disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storage.records.catalog.catalog import FileHashes


@dataclass(frozen=True)
class VersionFiles:
    """Written and checked files of a version.

    `weights` is the one file that people download, published as `weights_name`; `hashes` are what other tools know it
    by. `folder` is what diffusers loads: path inside the version to file.
    """

    weights: Path
    weights_name: str
    hashes: FileHashes
    folder: Mapping[str, Path]
