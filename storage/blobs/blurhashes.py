"""BlurHash: a picture's place-holder in some thirty characters, shown while the picture itself is on its way.

The algorithm is that of https://github.com/woltapp/blurhash/blob/master/Algorithm.md, carried out by halcy's
`blurhash`. The picture is made small first: a hash keeps a dozen frequencies, and the work grows with the pixels.
"""

from __future__ import annotations

from typing import Any, cast

import blurhash
from PIL import Image

SMALL = 32
"""Pixels of the longer side that the hash is taken from."""


def blurhash_of(image: Image.Image) -> str:
    """The BlurHash of an RGB image: 4 by 3 frequencies, 3 by 4 for an upright one (28 characters)."""
    small = image.copy()
    small.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    across, down = (3, 4) if image.height > image.width else (4, 3)
    rows = [[small.getpixel((x, y)) for x in range(small.width)] for y in range(small.height)]
    return cast(str, cast(Any, blurhash).encode(rows, across, down))
