"""Pictures side by side: each in its place, as large as they are, and never too large together."""

from __future__ import annotations

import pytest
from PIL import Image

from storage.blobs.pictures.grids import MARGIN, MAX_SIDE, PAPER, cell_of, grid_of
from storage.errors import InvalidRequest

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0), (0, 90, 90)]


def pictures(count: int, size: tuple[int, int] = (40, 20)) -> list[Image.Image]:
    """Pictures of one colour each."""
    return [Image.new("RGB", size, COLOURS[number % len(COLOURS)]) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "columns", "across", "down"),
    [(1, None, 1, 1), (2, None, 2, 1), (4, None, 2, 2), (5, None, 3, 2), (5, 5, 5, 1), (5, 9, 5, 1), (5, 1, 1, 5)],
)
def test_pictures_stand_in_rows_at_their_own_size(count: int, columns: int | None, across: int, down: int) -> None:
    grid = grid_of(pictures(count), columns)

    assert grid.size == (across * (40 + MARGIN) + MARGIN, down * (20 + MARGIN) + MARGIN)
    for number in range(count):
        row, column = divmod(number, across)
        left, top = MARGIN + column * (40 + MARGIN), MARGIN + row * (20 + MARGIN)
        assert grid.crop((left, top, left + 40, top + 20)).getcolors() == [(800, COLOURS[number])]
    assert grid.getpixel((0, 0)) == PAPER


def test_pixels_are_kept_where_there_is_room() -> None:
    picture = Image.merge("RGB", [Image.linear_gradient("L").resize((33, 17))] * 3)

    assert grid_of([picture]).crop((MARGIN, MARGIN, MARGIN + 33, MARGIN + 17)).tobytes() == picture.tobytes()


@pytest.mark.parametrize(("size", "columns"), [((2000, 30), 3), ((30, 2000), 1), ((1400, 1400), 3)])
def test_a_grid_of_large_pictures_is_as_large_as_one_may_be(size: tuple[int, int], columns: int) -> None:
    grid = grid_of(pictures(3, size), columns)

    assert MAX_SIDE - 3 * columns - MARGIN <= max(grid.size) <= MAX_SIDE


def test_a_smaller_picture_is_in_the_middle_of_its_cell() -> None:
    grid = grid_of([*pictures(1, (40, 40)), Image.new("L", (10, 40), 128)])

    assert grid.getpixel((MARGIN + 40 + MARGIN + 20, MARGIN + 20)) == (128, 128, 128)
    assert grid.getpixel((MARGIN + 40 + MARGIN + 2, MARGIN + 20)) == PAPER


def test_a_picture_that_is_enlarged_by_a_whole_number_stays_sharp() -> None:
    picture = Image.new("RGB", (2, 2), COLOURS[0])
    picture.putpixel((1, 1), COLOURS[1])

    assert cell_of(picture, (8, 8)).getcolors() == [(48, COLOURS[0]), (16, COLOURS[1])]
    assert len(cell_of(picture, (9, 9)).getcolors() or ()) > 2


def test_no_pictures_or_columns_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="images: a grid needs a picture"):
        grid_of([])
    with pytest.raises(InvalidRequest, match="columns: 0 is no number of columns"):
        grid_of(pictures(2), 0)
