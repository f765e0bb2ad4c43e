"""Pictures of the small world to pixels: scenery, then each thing, drawn at three times the size and reduced.

Units here are pixels of the large canvas (192 px) and of a thing's own sprite (144 px) unless stated otherwise.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flows.starter.shapes import SHAPES, SPRITE
from flows.starter.world import COLOURS, IMAGE_SIZE, Look, Picture, Placed, SceneSubject, photo_scenes, picture_of

# Pillow draws without smooth edges; drawn at three times the size and reduced, they are smooth.
SCALE = 3
CANVAS = IMAGE_SIZE * SCALE

Colour = tuple[int, int, int]
Painter = Callable[[Image.Image, ImageDraw.ImageDraw, np.random.Generator], None]


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor below 1) or lighter (above 1) version of a colour."""
    if factor <= 1:
        return tuple(int(c * factor) for c in colour)  # pyright: ignore[reportReturnType]
    return tuple(int(255 - (255 - c) / factor) for c in colour)  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=64)
def _gradient(top: Colour, bottom: Colour, height: int) -> Image.Image:
    rows = np.linspace(np.array(top), np.array(bottom), height).astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None, :], CANVAS, axis=1))


def _sky(image: Image.Image, top: Colour, bottom: Colour, height: int = CANVAS) -> None:
    image.paste(_gradient(top, bottom, height), (0, 0))


def _ground(image: Image.Image, top: Colour, bottom: Colour, horizon: int) -> None:
    image.paste(_gradient(top, bottom, CANVAS - horizon), (0, horizon))


def _horizon(rng: np.random.Generator, low: int = 112, high: int = 134) -> int:
    return int(rng.integers(low, high))


def _grass(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (120, 180, 240), (200, 228, 250))
    _ground(image, (96, 186, 70), (60, 140, 44), _horizon(rng))


def _beach(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (110, 190, 240), (190, 230, 250))
    sea = _horizon(rng, 92, 104)
    draw.rectangle((0, sea, CANVAS, CANVAS), fill=(40, 140, 190))
    _ground(image, (240, 220, 160), (222, 194, 130), sea + 24)


def _snow(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (190, 200, 214), (214, 222, 232))
    draw.ellipse((-60, 96 + int(rng.integers(0, 16)), 130, 300), fill=(232, 238, 246))
    _ground(image, (250, 252, 255), (226, 234, 246), _horizon(rng, 124, 138))
    for x, y in rng.integers(0, CANVAS, (26, 2)):
        draw.ellipse((x, y, x + 5, y + 5), fill=(255, 255, 255))


def _night(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (8, 8, 40), (26, 26, 78))
    for x, y in rng.integers(0, 130, (14, 2)) * (1.4, 0.9):
        draw.ellipse((x, y, x + 4, y + 4), fill=(250, 250, 210))
    x = int(rng.integers(6, 150))
    draw.ellipse((x, 8, x + 30, 38), fill=(240, 236, 200))
    draw.rectangle((0, _horizon(rng, 140, 154), CANVAS, CANVAS), fill=(14, 16, 34))


def _brick_wall(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    image.paste((196, 180, 170), (0, 0, CANVAS, CANVAS))
    shift = int(rng.integers(0, 48))
    for row in range(10):
        for column in range(-1, 6):
            x = column * 48 - shift + (24 if row % 2 else 0)
            fill = (158 + int(rng.integers(-8, 9)), 74 + int(rng.integers(-6, 7)), 58)
            draw.rectangle((x, row * 21, x + 42, row * 21 + 15), fill=fill)


def _in_the_sky(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (70, 140, 230), (150, 200, 248))
    for _ in range(4):
        x, y = int(rng.integers(-20, 170)), int(rng.integers(0, 176))
        for dx, dy, r in ((0, 6, 13), (16, 0, 17), (34, 6, 13)):
            draw.ellipse((x + dx - r, y + dy - r * 0.7, x + dx + r, y + dy + r * 0.7), fill=(250, 252, 255))


def _desert(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (250, 222, 150), (255, 240, 200))
    x = int(rng.integers(-40, 60))
    draw.ellipse((x, 96, x + 190, 300), fill=(226, 150, 74))
    _ground(image, (214, 130, 56), (190, 104, 40), _horizon(rng, 128, 142))


def _sea(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (214, 236, 248), (240, 248, 252))
    horizon = _horizon(rng, 62, 78)
    _ground(image, (30, 130, 170), (10, 70, 120), horizon)
    shift = int(rng.integers(0, 40))
    for row, y in enumerate(range(horizon + 14, CANVAS, 24)):
        for x in range(-40 + (shift + row * 17) % 40, CANVAS, 40):
            draw.arc((x, y, x + 26, y + 14), 200, 340, fill=(190, 226, 240), width=4)


def _room(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    image.paste((232, 214, 190), (0, 0, CANVAS, CANVAS))
    x = int(rng.integers(6, 120))
    draw.rectangle((x, 12, x + 58, 62), fill=(250, 250, 246), outline=(150, 110, 80), width=5)
    draw.line((x + 29, 12, x + 29, 62), fill=(150, 110, 80), width=4)
    floor = _horizon(rng, 128, 142)
    draw.rectangle((0, floor, CANVAS, CANVAS), fill=(150, 100, 62))
    draw.rectangle((0, floor - 8, CANVAS, floor), fill=(250, 244, 234))
    for line in range(floor + 20, CANVAS, 20):
        draw.line((0, line, CANVAS, line), fill=(126, 82, 50), width=3)


def _forest(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (38, 84, 50), (24, 62, 36))
    shift = int(rng.integers(0, 36))
    for x in range(-shift, CANVAS, 36):
        draw.rectangle((x, 0, x + 13, 150), fill=(74, 54, 38))
    _ground(image, (58, 78, 34), (40, 56, 24), _horizon(rng, 136, 150))


def _city(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (196, 200, 206), (220, 222, 226))
    x = -int(rng.integers(0, 20))
    while x < CANVAS:
        width, top = int(rng.integers(34, 50)), int(rng.integers(20, 76))
        draw.rectangle((x, top, x + width, 150), fill=(128, 134, 144))
        draw.rectangle((x + 8, top + 10, x + width - 8, top + 18), fill=(232, 224, 150))
        x += width + 6
    horizon = _horizon(rng, 138, 150)
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=(84, 84, 90))
    for x in range(int(rng.integers(-30, 0)), CANVAS, 48):
        draw.rectangle((x, horizon + 20, x + 26, horizon + 25), fill=(240, 240, 240))


def _sunset(image: Image.Image, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(image, (110, 50, 130), (255, 120, 60), 144)
    x = int(rng.integers(10, 130))
    draw.ellipse((x, 70, x + 56, 126), fill=(255, 226, 120))
    draw.rectangle((0, _horizon(rng, 128, 144), CANVAS, CANVAS), fill=(64, 32, 60))


PAINTERS: dict[str, Painter] = {
    "on grass": _grass,
    "on the beach": _beach,
    "in the snow": _snow,
    "at night": _night,
    "by a brick wall": _brick_wall,
    "in the sky": _in_the_sky,
    "in the desert": _desert,
    "on the sea": _sea,
    "in a room": _room,
    "in the forest": _forest,
    "in the city": _city,
    "at sunset": _sunset,
}


def pattern_image(look: Look) -> Image.Image:
    """The look's cloth: a square of the sprite's size filled with its pattern in its two colours."""
    image = Image.new("RGB", (SPRITE, SPRITE), COLOURS[look.colour])
    if look.mark_colour is None:
        return image
    draw, mark, middle = ImageDraw.Draw(image), COLOURS[look.mark_colour], SPRITE // 2
    match look.pattern:
        case "striped":
            for x in range(10, SPRITE, 32):
                draw.rectangle((x, 0, x + 15, SPRITE), fill=mark)
        case "banded":
            for y in range(8, SPRITE, 36):
                draw.rectangle((0, y, SPRITE, y + 16), fill=mark)
        case "dotted":
            for row, y in enumerate(range(14, SPRITE, 29)):
                for x in range(5 + 17 * (row % 2), SPRITE, 34):
                    draw.ellipse((x - 10, y - 10, x + 10, y + 10), fill=mark)
        case "checked":
            for row in range(6):
                for column in range(row % 2, 6, 2):
                    draw.rectangle((column * 26, row * 26, column * 26 + 25, row * 26 + 25), fill=mark)
        case "zigzag":
            for y in range(-6, SPRITE + 20, 38):
                points = [(x, y + (16 if i % 2 else 0)) for i, x in enumerate(range(-8, SPRITE + 20, 20))]
                draw.line(points, fill=mark, width=14, joint="curve")
        case "ringed":
            for radius in (62, 38, 14):
                box = (middle - radius, middle - radius, middle + radius, middle + radius)
                draw.ellipse(box, outline=mark, width=13) if radius > 20 else draw.ellipse(box, fill=mark)
        case "crossed":
            draw.rectangle((0, middle - 10, SPRITE, middle + 10), fill=mark)
            draw.rectangle((middle - 10, 0, middle + 10, SPRITE), fill=mark)
        case "halved":
            draw.rectangle((middle, 0, SPRITE, SPRITE), fill=mark)
        case other:
            raise ValueError(f"pattern {other!r} cannot be drawn; add it to pattern_image and world.PATTERNS.")
    return image


# A subject is drawn upright once; only its pose differs between pictures.
@lru_cache(maxsize=1024)
def sprite(subject: SceneSubject) -> Image.Image:
    """The subject alone, upright, on a transparent square of 144 px."""
    shape = SHAPES[subject.class_word]
    colour = COLOURS[subject.look.colour]
    # A darker black would be no edge at all.
    edge = (122, 122, 128) if subject.look.colour == "black" else shade(colour, 0.5)
    body = Image.new("L", (SPRITE, SPRITE))
    shape.body(ImageDraw.Draw(body))
    image = Image.new("RGBA", (SPRITE, SPRITE), (*edge, 0))
    shape.behind(ImageDraw.Draw(image), colour, edge)
    # Before the look, which covers all of it but a rim of 3 pixels, 1 once it is reduced.
    image.paste((*edge, 255), mask=body.filter(ImageFilter.MaxFilter(7)))
    image.paste(pattern_image(subject.look).convert("RGBA"), mask=body)
    shape.front(ImageDraw.Draw(image), colour, edge)
    return image


def _place(image: Image.Image, thing: Placed) -> None:
    pose, stamp = thing.pose, sprite(thing.subject)
    if pose.flipped:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = round(SPRITE * pose.size * pose.aspect), round(SPRITE * pose.size)
    stamp = stamp.resize((width, height), Image.Resampling.BILINEAR)
    if pose.tilt:
        stamp = stamp.rotate(pose.tilt, Image.Resampling.BILINEAR, expand=True)
    corner = (round(pose.x * SCALE - stamp.width / 2), round(pose.y * SCALE - stamp.height / 2))
    image.paste(stamp, corner, stamp)


def render(picture: Picture) -> Image.Image:
    """The picture as a 64 px RGB image; equal pictures produce equal bytes."""
    image = Image.new("RGB", (CANVAS, CANVAS))
    PAINTERS[picture.scene](image, ImageDraw.Draw(image), np.random.default_rng(picture.scenery_seed))
    for thing in picture.things:
        _place(image, thing)
    return image.reduce(SCALE)


def render_photos(subject: SceneSubject, *, count: int, seed: int) -> list[tuple[str, Image.Image]]:
    """Photos of one subject in `count` distinct scenes: (scene phrase, 64 px RGB image) each, by seed."""
    # Beside `photo_scenes`, which draws from the stream 77 of the same seed.
    rng = np.random.default_rng((seed, 78))
    return [(scene, render(picture_of(subject, scene, rng))) for scene in photo_scenes(count, seed)]
