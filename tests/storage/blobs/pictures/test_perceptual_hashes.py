"""Hashes equal those of ImageHash, stay near for versions of one picture, and are far for different ones."""

from __future__ import annotations

import io
import math
import random

import pytest
from PIL import Image, ImageChops, ImageDraw

from storage.blobs.pictures.perceptual_hashes import hash_distance, perceptual_hash
from storage.errors import InvalidRequest


def noise() -> Image.Image:
    """Random pixels."""
    return Image.frombytes("RGB", (64, 48), random.Random(1).randbytes(64 * 48 * 3))


def disc() -> Image.Image:
    """A red ellipse on blue."""
    image = Image.new("RGB", (200, 120), (10, 60, 90))
    ImageDraw.Draw(image).ellipse((30, 10, 120, 100), (200, 30, 30))
    return image


def rings() -> Image.Image:
    """Grey waves."""
    places = ((x, y) for y in range(96) for x in range(96))
    return Image.frombytes(
        "L", (96, 96), bytes(int(127 + 120 * math.sin((x * x + 2 * y * y) / 400 + x / 9)) for x, y in places)
    )


@pytest.mark.parametrize(
    ("image", "recorded"),
    [
        (noise(), "877e70c809c6cc77"),
        (disc(), "cdcd3e2e313a3131"),
        (rings(), "fefefefcf8000000"),
        (Image.radial_gradient("L"), "ee989837e69ac819"),
        (Image.linear_gradient("L"), "8000800080008000"),
        (Image.new("RGB", (50, 50), (90, 10, 200)), "8000000000000000"),
        (Image.new("RGB", (50, 50)), "0000000000000000"),
    ],
    ids=["noise", "disc", "rings", "radial", "linear", "flat", "black"],
)
def test_a_hash_is_that_of_imagehash(image: Image.Image, recorded: str) -> None:
    # Recorded from ImageHash 4.3.2 (`phash`) on NumPy 2.4, SciPy 1.17 and Pillow 13.
    assert perceptual_hash(image) == recorded


def test_versions_of_a_picture_are_near_and_another_picture_is_far() -> None:
    stream = io.BytesIO()
    disc().save(stream, "JPEG", quality=40)
    scaled = disc().resize((77, 46))
    brighter = ImageChops.add(disc(), Image.new("RGB", disc().size, (15, 15, 15)))

    near = [
        hash_distance(perceptual_hash(disc()), perceptual_hash(one)) for one in (Image.open(stream), scaled, brighter)
    ]

    assert max(near) <= 10
    assert hash_distance(perceptual_hash(disc()), perceptual_hash(noise())) >= 20


def test_a_distance_counts_bits() -> None:
    assert hash_distance("0000000000000000", "8000000000000001") == 2
    assert hash_distance("FFFFFFFFFFFFFFFF", "ffffffffffffffff") == 0
    assert hash_distance("0" * 16, "f" * 16) == 64


@pytest.mark.parametrize("text", ["", "0" * 15, "0" * 17, "g" * 16, "0x" + "0" * 14, "0" * 16 + "\n"])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="it has 16 hexadecimal digits"):
        hash_distance("0" * 16, text)
