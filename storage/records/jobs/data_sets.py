"""Data sets: the subject's photos that a caller uploaded, in canonical form, named by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec


class DataSetImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a data set. `name` is the caller's file name, shown only; `sha256` names the canonical PNG.

    caption: what it shows, for its prompt; empty: only the subject. repeats: how often it comes in each pass.
    whole_prompt: the caption is the prompt, and nothing of the subject is put before it.
    """

    position: int
    name: str
    sha256: str
    size: int
    width: int
    height: int
    caption: str = ""
    repeats: int = 1
    whole_prompt: bool = False


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `data_sets`."""

    id: UUID
    account_id: UUID
    name: str
    content_hash: str
    created_at: datetime
    image_count: int


def content_hash(images: Iterable[DataSetImage]) -> str:
    """SHA-256 over what training sees of the images, sorted: the same photos are the same data set, however sent."""
    return hashlib.sha256("\n".join(sorted(_line(image) for image in images)).encode()).hexdigest()


def _line(image: DataSetImage) -> str:
    # The hash alone for a photo of which nothing is said: data sets of before there were captions keep their hash.
    said = f" {image.repeats} {image.caption}" if image.caption or image.repeats != 1 else ""
    return image.sha256 + (" whole" if image.whole_prompt and image.caption else "") + said
