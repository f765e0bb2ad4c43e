"""Place-holders: short, the same for the same picture, and like it."""

from __future__ import annotations

import string

import blurhash
import pytest
from PIL import Image

from storage.blobs.blurhashes import blurhash_of

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase + "#$%*+,-.:;=?@[]^_{|}~"
RED, BLUE = (200, 30, 30), (20, 40, 210)


def halves(size: tuple[int, int]) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image


def value(text: str) -> int:
    """A number in the specification's base 83."""
    number = 0
    for digit in text:
        number = number * 83 + DIGITS.index(digit)
    return number


@pytest.mark.parametrize(("size", "across", "down"), [((64, 48), 4, 3), ((64, 64), 4, 3), ((30, 900), 3, 4)])
def test_a_hash_says_its_frequencies_and_the_average_colour_as_the_specification_has_them(
    size: tuple[int, int], across: int, down: int
) -> None:
    found = blurhash_of(Image.new("RGB", size, RED))
    assert len(found) == 4 + 2 * across * down
    assert value(found[0]) == (across - 1) + (down - 1) * 9
    assert value(found[2:6]) == 200 << 16 | 30 << 8 | 30


def test_a_hash_is_like_its_picture_and_no_other() -> None:
    found = blurhash_of(halves((640, 480)))
    assert found == blurhash_of(halves((640, 480)))
    shown = blurhash.decode(found, 8, 6)
    for row in shown:
        assert row[0][0] > row[0][2]
        assert row[7][2] > row[7][0]
    assert found != blurhash_of(halves((640, 480)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
