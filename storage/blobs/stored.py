"""What lies in a blob store: names, sizes, ages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

PREFIXES = tuple(f"{number:02x}" for number in range(256))
"""Blobs lie in a folder for each pair of first digits."""
_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Blob:
    """Bytes in the store: their SHA-256 (64 hex digits) and how many they are."""

    sha256: str
    size: int


@dataclass(frozen=True)
class StoredBlob:
    """A blob as the store lists it, with its age in seconds."""

    sha256: str
    size: int
    age_seconds: float


def is_name(name: str) -> bool:
    """Whether this can be the name of a blob."""
    return len(name) == 64 and _DIGITS.issuperset(name)


def facts_at(filesystem: Any, path: str) -> Mapping[str, Any] | None:
    """What an fsspec file system says of a file or folder; None when it is not there. Raises what the file system does.

    Not by its `exists`: on a disk that does not respond that says that there is nothing.
    """
    try:
        # fsspec/filesystem_spec issue 1379: `exists` takes every exception for "not there".
        return cast(Mapping[str, Any], filesystem.info(path))
    except FileNotFoundError:
        return None


def modified_at(facts: Mapping[str, Any], now: float) -> float:
    """When a file was last written (Unix seconds); file systems name it differently. Unknown: `now`."""
    # Unknown counts as just now: bytes of unknown age are never old enough to be swept.
    value = next((facts[name] for name in ("mtime", "LastModified", "created") if name in facts), now)
    return value.timestamp() if isinstance(value, datetime) else float(cast(float, value))
