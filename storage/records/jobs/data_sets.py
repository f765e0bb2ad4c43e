"""Data sets: the subject's photos that a caller uploaded, in canonical form, named by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
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


def kept_out(sources: Iterable[str], photos: int) -> frozenset[str]:
    """The SHA-256 of the `photos` photos that are not learned from: the last by their hash, however they were sent."""
    return frozenset(sorted(set(sources))[-photos:]) if photos else frozenset()


def learned_images(images: Collection[DataSetImage], held_out: int) -> list[DataSetImage]:
    """Those that are learned from, when `held_out` photos are kept out."""
    left_out = kept_out((image.sha256 for image in images), held_out)
    return [image for image in images if image.sha256 not in left_out]


def samples_of_an_epoch(images: Collection[DataSetImage], held_out: int) -> int:
    """How many samples one pass over the photos that are learned from has: each as often as it repeats."""
    return sum(image.repeats for image in learned_images(images, held_out))


def _line(image: DataSetImage) -> str:
    # The hash alone for a photo of which nothing is said: data sets of before there were captions keep their hash.
    said = f" {image.repeats} {image.caption}" if image.caption or image.repeats != 1 else ""
    return image.sha256 + (" whole" if image.whole_prompt and image.caption else "") + said
