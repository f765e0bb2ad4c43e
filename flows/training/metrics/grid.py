"""The picture of a fine-tune: a row of photos, a row of the base model, a row of the fine-tuned model in new scenes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from flows.diffusion.sampled_sets import png
from flows.training.photos.pictures import Picture, one_by_one

CELL = 192
_MARGIN = 8
_LABEL_WIDTH = 112
_LABEL_HEIGHT = 24
_FONT_SIZE = 15
_PAPER, _INK = (250, 250, 248), (30, 30, 34)


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
        _LABEL_WIDTH + width * (CELL + _MARGIN) + _MARGIN,
        2 * _MARGIN + _LABEL_HEIGHT + len(rows) * (CELL + _MARGIN),
    )
    grid = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(_FONT_SIZE)
    for column, text in enumerate(columns):
        middle = _LABEL_WIDTH + column * (CELL + _MARGIN) + CELL // 2
        pen.text((middle, 2 * _MARGIN + CELL + _LABEL_HEIGHT // 2 - 2), text, _INK, font, anchor="mm")
    for number, row in enumerate(rows):
        top = _MARGIN + (_LABEL_HEIGHT if number else 0) + number * (CELL + _MARGIN)
        pen.text((_MARGIN, top + CELL // 2), row.label, _INK, font, anchor="lm")
        for column, image in enumerate(one_by_one(row.images)):
            grid.paste(_cell(image), (_LABEL_WIDTH + column * (CELL + _MARGIN), top))
    return grid


def without_photos(grid: bytes) -> bytes:
    """A grid, as PNG bytes, without its first row: for places that keep it when the photos are deleted."""
    with Image.open(io.BytesIO(grid)) as picture:
        return png(picture.crop((0, _MARGIN + CELL, picture.width, picture.height)))


def _cell(image: Image.Image) -> Image.Image:
    side = max(image.size)
    # Enlarged by whole numbers without blur, so that a reader sees the pixels there are.
    filter_ = Image.Resampling.NEAREST if side < CELL and CELL % side == 0 else Image.Resampling.LANCZOS
    scaled = image.convert("RGB").resize((CELL * image.width // side, CELL * image.height // side), filter_)
    cell = Image.new("RGB", (CELL, CELL), _PAPER)
    cell.paste(scaled, ((CELL - scaled.width) // 2, (CELL - scaled.height) // 2))
    return cell
