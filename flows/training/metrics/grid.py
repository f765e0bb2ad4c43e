"""The picture of a fine-tune: a row of photos, a row of the base model, a row of the fine-tuned model in new scenes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from flows.diffusion.sampled_sets import png
from flows.training.photos.pictures import Picture, one_by_one
from storage.blobs.pictures.grids import MARGIN, PAPER, cell_of

CELL = 192
_LABEL_WIDTH = 112
_LABEL_HEIGHT = 24
_FONT_SIZE = 15
_INK = (30, 30, 34)


@dataclass(frozen=True)
class Row:
    """One row: its label and its pictures, one a column."""

    label: str
    images: Sequence[Picture]


def draw_grid(columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """The rows under each other; `columns` are written below the first row: they name what the others show, not the
    photos. Small pictures are enlarged."""
    width = max([len(columns), *(len(row.images) for row in rows)])
    size = (
        _LABEL_WIDTH + width * (CELL + MARGIN) + MARGIN,
        2 * MARGIN + _LABEL_HEIGHT + len(rows) * (CELL + MARGIN),
    )
    grid = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(_FONT_SIZE)
    for column, text in enumerate(columns):
        middle = _LABEL_WIDTH + column * (CELL + MARGIN) + CELL // 2
        pen.text((middle, 2 * MARGIN + CELL + _LABEL_HEIGHT // 2 - 2), text, _INK, font, anchor="mm")
    for number, row in enumerate(rows):
        top = MARGIN + (_LABEL_HEIGHT if number else 0) + number * (CELL + MARGIN)
        pen.text((MARGIN, top + CELL // 2), row.label, _INK, font, anchor="lm")
        for column, image in enumerate(one_by_one(row.images)):
            grid.paste(cell_of(image, (CELL, CELL)), (_LABEL_WIDTH + column * (CELL + MARGIN), top))
    return grid


def without_photos(grid: bytes) -> bytes:
    """A grid, as PNG bytes, without its first row: for places that keep it when the photos are deleted."""
    with Image.open(io.BytesIO(grid)) as picture:
        return png(picture.crop((0, MARGIN + CELL, picture.width, picture.height)))
