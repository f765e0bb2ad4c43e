"""Pictures side by side in one: those of a request, and the cells of a training's evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from storage.errors import InvalidRequest

PAPER = (250, 250, 248)
MARGIN = 8
"""Pixels around and between pictures."""
MAX_SIDE = 4096
"""Pixels of a grid's longer side: pictures are made smaller, by one factor, where they would have more."""


def grid_of(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """The pictures in rows from left to right, in RGB, in cells as large as the largest of them.

    There are `columns`, or as many as make it as near to a square as it can be. Raises InvalidRequest for no pictures
    or no columns.
    """
    if not images:
        raise InvalidRequest({"images": "a grid needs a picture, and there is none"})
    across = math.ceil(math.sqrt(len(images))) if columns is None else min(columns, len(images))
    if across < 1:
        raise InvalidRequest({"columns": f"{columns} is no number of columns; ask for 1 or more"})
    down = math.ceil(len(images) / across)
    width, height = _cell_size(images, across, down)
    size = across * (width + MARGIN) + MARGIN, down * (height + MARGIN) + MARGIN
    grid = Image.new("RGB", size, PAPER)
    for number, image in enumerate(images):
        row, column = divmod(number, across)
        place = MARGIN + column * (width + MARGIN), MARGIN + row * (height + MARGIN)
        grid.paste(cell_of(image, (width, height)), place)
    return grid


def cell_of(image: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """A picture in the middle of a cell, made as large as fits.

    Enlarged by a whole number it is not smoothed, so that a reader sees the pixels that there are.
    """
    # Compared without a division, so that a picture of the cell's shape fills it.
    side = 0 if image.width * cell[1] >= image.height * cell[0] else 1
    room, taken = cell[side], image.size[side]
    size = max(1, room * image.width // taken), max(1, room * image.height // taken)
    filter_ = Image.Resampling.NEAREST if taken < room and room % taken == 0 else Image.Resampling.LANCZOS
    scaled = image.convert("RGB").resize(size, filter_)
    filled = Image.new("RGB", cell, PAPER)
    filled.paste(scaled, ((cell[0] - scaled.width) // 2, (cell[1] - scaled.height) // 2))
    return filled


def _cell_size(images: Sequence[Image.Image], across: int, down: int) -> tuple[int, int]:
    width, height = max(image.width for image in images), max(image.height for image in images)
    rooms = [(MAX_SIDE - MARGIN) // count - MARGIN for count in (across, down)]
    # The side that is short of room decides.
    room, taken = min(zip(rooms, (width, height), strict=True), key=lambda pair: pair[0] / pair[1])
    if room >= taken:
        return width, height
    return max(1, room * width // taken), max(1, room * height // taken)
