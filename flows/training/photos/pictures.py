"""Pictures that are decoded one at a time: a photo of 12 million pixels takes 36 MB as long as it is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from flows.runs.liveness import advanced
from flows.training.photos.crops import pixels_of, square_of
from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing

MEASURED_TOGETHER = 8
"""Pictures that a network measures at a time: at 1,024 pixels they are 100 MB in float32."""


class StoredPicture:
    """A picture that stays where it is stored. `read` returns its bytes; what they decode to is not kept."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, read from the header once."""
        if self._size is None:
            with Image.open(io.BytesIO(self._read())) as image:
                self._size = image.size
        return self._size

    def decoded(self) -> Image.Image:
        """The picture in RGB, read each time. Raises what `read` and PIL raise."""
        image = Image.open(io.BytesIO(self._read())).convert("RGB")
        self._size = image.size
        return image


Picture = Image.Image | StoredPicture


def is_whole(blobs: BlobStore, sha256: str) -> bool:
    """Whether a stored picture is there with the bytes of its name.

    A damaged one is deleted, since a put of the good bytes would find it under their name. Raises StoreUnavailable.
    """
    try:
        blobs.read(sha256)
    except BlobMissing:
        return False
    except BlobCorrupted:
        blobs.delete(sha256)
        return False
    return True


class Pixels(Protocol):
    """Images as (N, 3, H, W) in [-1, 1], of which a slice is a tensor: a tensor is one, and `SquarePixels`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class SquarePixels:
    """The middle square of every picture in `resolution`: kept as whole numbers, a quarter of what pixels take."""

    def __init__(self, pictures: Sequence[Picture], resolution: int) -> None:
        self._squares = [square_of(image, resolution) for image in one_by_one(pictures)]
        self._size = (resolution, resolution)

    def __len__(self) -> int:
        """Pictures."""
        return len(self._squares)

    def __getitem__(self, rows: slice) -> Tensor:
        """Pixels (N, 3, resolution, resolution) in [-1, 1] of some of them."""
        return torch.stack([pixels_of(square, self._size) for square in self._squares[rows]])


def one_by_one(pictures: Sequence[Picture]) -> Iterator[Image.Image]:
    """Every picture, decoded when it is asked for; one that comes several times in a row is decoded once."""
    for _, same in groupby(pictures, key=id):
        first, *others = same
        image = first if isinstance(first, Image.Image) else first.decoded()
        for _ in (first, *others):
            yield image


def measured_in_batches(network: Callable[[Tensor], Tensor], images: Pixels) -> Tensor:
    """What a network returns for images, row by row, when it is given a few of them at a time."""
    found: list[Tensor] = []
    for start in range(0, len(images), MEASURED_TOGETHER):
        found.append(network(images[start : start + MEASURED_TOGETHER]))
        advanced()
    return torch.cat(found)
