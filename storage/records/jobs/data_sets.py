"""Data sets: the subject's photos that a caller uploaded, in canonical form, named by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec


class DataSetImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a data set. `name` is the caller's file name, shown only; `sha256` names the canonical PNG."""

    position: int
    name: str
    sha256: str
    size: int
    width: int
    height: int


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `data_sets`."""

    id: UUID
    account_id: UUID
    name: str
    content_hash: str
    created_at: datetime
    image_count: int


def content_hash(image_hashes: Iterable[str]) -> str:
    """SHA-256 over the images' own hashes in sorted order: the same photos are the same data set, however sent."""
    return hashlib.sha256("\n".join(sorted(image_hashes)).encode()).hexdigest()
