"""Perceptual hashes: 64 bits that stay nearly the same when a picture is scaled, compressed or made a little brighter.

The definition is that of `phash` in the ImageHash library, so that hashes of others compare with ours: grey, 32 by 32
pixels, the cosine transform of rows and columns, and of its lowest 8 by 8 frequencies which are above their median.
"""

from __future__ import annotations

import re
from math import pi

import numpy as np
from PIL import Image

from storage.errors import InvalidRequest

SIDE, KEPT = 32, 8
BITS = KEPT * KEPT
_DECIMALS = 6

_PLACES = np.arange(SIDE)
_WAVES = 2 * np.cos(pi * np.arange(KEPT)[:, None] * (2 * _PLACES + 1) / (2 * SIDE))
"""The first rows of the unscaled DCT-II, (8, 32)."""


def perceptual_hash(image: Image.Image) -> str:
    """The hash as 16 hexadecimal digits; the first bit is the lowest frequency.

    Frequencies that a picture does not have are zero up to rounding, which differs between machines and libraries; here
    they are exactly zero, so that a hash is the same everywhere. A picture without any other is one of even colour.
    """
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    frequencies = np.round(_WAVES @ np.asarray(small, dtype=np.float64) @ _WAVES.T, _DECIMALS)
    bits = (frequencies > np.median(frequencies)).flatten()
    return np.packbits(bits).tobytes().hex()


def hash_distance(one: str, other: str) -> int:
    """In how many of the 64 bits two hashes differ: 0 for equal ones, some 10 for versions of one picture, some 32 for
    two that have nothing in common. Raises InvalidRequest for what is no hash."""
    return (_number(one) ^ _number(other)).bit_count()


def _number(text: str) -> int:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{BITS // 4}}}", text):
        raise InvalidRequest({"hash": f"'{text[:40]}' is no perceptual hash; it has {BITS // 4} hexadecimal digits"})
    return int(text, 16)
