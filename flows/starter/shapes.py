"""The silhouettes of the world's classes, each on its own square of 144 px.

A shape has a body, which wears the look, and details behind and in front of it, which do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL.ImageDraw import ImageDraw

SPRITE = 144
BARK = (110, 70, 40)
STEM = (50, 130, 50)
DARK = (36, 36, 42)

Colour = tuple[int, int, int]
Detail = Callable[[ImageDraw, Colour, Colour], None]


@dataclass(frozen=True)
class Shape:
    """How to draw one class: `body` fills the mask; `behind` and `front` draw details (colour, edge colour)."""

    body: Callable[[ImageDraw], None]
    behind: Detail
    front: Detail


def _nothing(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    """No details on this side."""


def _regular(points: int, outer: float, inner: float, *, centre: tuple[float, float] = (72, 72)) -> list[float]:
    corners: list[float] = []
    for i in range(points * 2):
        radius, angle = (outer, inner)[i % 2], math.pi * i / points - math.pi / 2
        corners += [centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)]
    return corners


def _mug_behind(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.ellipse((82, 48, 136, 106), fill=edge)
    draw.ellipse((86, 52, 132, 102), fill=colour)
    draw.ellipse((97, 63, 121, 91), fill=edge)
    draw.ellipse((100, 66, 118, 88), fill=(0, 0, 0, 0))


def _mug_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.ellipse((17, 22, 103, 46), fill=edge)


def _house_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.line((14, 70, 130, 70), fill=edge, width=5)
    draw.rectangle((60, 96, 84, 130), fill=(92, 58, 34))


def _tree_body(draw: ImageDraw) -> None:
    for box in ((20, 34, 84, 98), (60, 34, 124, 98), (38, 8, 106, 76), (34, 40, 110, 106)):
        draw.ellipse(box, fill=255)


def _car_body(draw: ImageDraw) -> None:
    draw.rounded_rectangle((6, 66, 138, 106), 14, fill=255)
    draw.polygon((30, 68, 48, 36, 98, 36, 118, 68), fill=255)


def _car_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.polygon((42, 64, 54, 44, 70, 44, 70, 64), fill=(200, 230, 246))
    draw.polygon((77, 64, 77, 44, 93, 44, 106, 64), fill=(200, 230, 246))
    for x in (38, 106):
        draw.ellipse((x - 17, 90, x + 17, 124), fill=DARK)
        draw.ellipse((x - 7, 100, x + 7, 114), fill=(190, 190, 196))


def _fish_body(draw: ImageDraw) -> None:
    draw.ellipse((34, 36, 138, 108), fill=255)
    draw.polygon((46, 72, 6, 36, 14, 72, 6, 108), fill=255)


def _fish_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.ellipse((108, 54, 124, 70), fill=(250, 250, 250))
    draw.ellipse((113, 58, 121, 66), fill=(10, 10, 10))
    draw.line((44, 58, 44, 86), fill=edge, width=4)


def _flower_body(draw: ImageDraw) -> None:
    for i in range(6):
        x, y = 72 + 31 * math.cos(i * math.pi / 3), 52 + 31 * math.sin(i * math.pi / 3)
        draw.ellipse((x - 20, y - 20, x + 20, y + 20), fill=255)
    draw.ellipse((42, 22, 102, 82), fill=255)


def _flower_behind(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.line((72, 60, 72, 142), fill=STEM, width=10)
    draw.ellipse((74, 106, 108, 122), fill=STEM)


def _flower_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.ellipse((60, 40, 84, 64), fill=(250, 200, 40), outline=(140, 90, 20), width=3)


def _boat_body(draw: ImageDraw) -> None:
    draw.polygon((4, 92, 140, 92, 112, 130, 32, 130), fill=255)
    draw.polygon((64, 8, 64, 80, 14, 80), fill=255)
    draw.polygon((78, 20, 78, 80, 122, 80), fill=255)


def _kite_behind(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.line((72, 100, 84, 114, 66, 126, 78, 142), fill=(60, 50, 50), width=5)
    draw.polygon((74, 118, 92, 110, 92, 128), fill=edge)
    draw.polygon((74, 122, 56, 116, 56, 134), fill=edge)


def _hat_body(draw: ImageDraw) -> None:
    draw.rounded_rectangle((36, 20, 108, 112), 12, fill=255)
    draw.ellipse((6, 92, 138, 124), fill=255)


def _hat_front(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.arc((34, 84, 110, 112), 8, 172, fill=edge, width=6)


def _umbrella_body(draw: ImageDraw) -> None:
    draw.pieslice((6, 12, 138, 144), 180, 360, fill=255)
    for x in (6, 39, 72, 105):
        draw.ellipse((x, 66, x + 33, 92), fill=255)


def _umbrella_behind(draw: ImageDraw, colour: Colour, edge: Colour) -> None:
    draw.line((72, 10, 72, 126), fill=(70, 54, 44), width=7)
    draw.arc((72, 112, 98, 138), 0, 180, fill=(70, 54, 44), width=7)


SHAPES: dict[str, Shape] = {
    "mug": Shape(lambda d: d.rounded_rectangle((18, 30, 102, 130), 14, fill=255), _mug_behind, _mug_front),
    "house": Shape(
        lambda d: d.polygon((72, 10, 136, 70, 122, 70, 122, 130, 22, 130, 22, 70, 8, 70), fill=255),
        _nothing,
        _house_front,
    ),
    "tree": Shape(_tree_body, lambda d, c, e: d.rectangle((62, 90, 82, 142), fill=BARK), _nothing),
    "car": Shape(_car_body, _nothing, _car_front),
    "fish": Shape(_fish_body, _nothing, _fish_front),
    "flower": Shape(_flower_body, _flower_behind, _flower_front),
    "star": Shape(lambda d: d.polygon(_regular(5, 68, 34, centre=(72, 76)), fill=255), _nothing, _nothing),
    "ball": Shape(lambda d: d.ellipse((14, 14, 130, 130), fill=255), _nothing, _nothing),
    "boat": Shape(_boat_body, lambda d, c, e: d.line((71, 6, 71, 96), fill=BARK, width=7), _nothing),
    "kite": Shape(lambda d: d.polygon((72, 4, 122, 48, 72, 108, 22, 48), fill=255), _kite_behind, _nothing),
    "hat": Shape(_hat_body, _nothing, _hat_front),
    "umbrella": Shape(_umbrella_body, _umbrella_behind, _nothing),
}
