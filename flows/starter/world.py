"""The starter's small world: what exists in it, which looks have names, and what a seeded picture shows.

A picture is a value; `renderer.render` turns it into pixels and `captions.caption` into words, so that the truth of
every image is known. Some (class, pattern) pairs are held out: no picture of the stream shows them, and the
subjects made of them are the photos of the demo and of the tests.
"""

from dataclasses import dataclass

import numpy as np

IMAGE_SIZE = 64

CLASSES: tuple[str, ...] = (
    "mug",
    "house",
    "tree",
    "car",
    "fish",
    "flower",
    "star",
    "ball",
    "boat",
    "kite",
    "hat",
    "umbrella",
)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 32),
    "yellow": (250, 214, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 205),
    "purple": (132, 50, 160),
    "pink": (244, 130, 180),
    "brown": (122, 74, 40),
    "white": (245, 245, 245),
    "black": (34, 34, 40),
}

# Adjective for the slot before the noun -> plural noun for "with blue stripes".
PATTERNS: dict[str, str] = {
    "plain": "",
    "striped": "stripes",
    "banded": "bands",
    "dotted": "dots",
    "checked": "checks",
    "zigzag": "zigzags",
    "ringed": "rings",
    "crossed": "crosses",
    "halved": "halves",
}

# Prompt phrases; the judge reports its scene probabilities in this order.
SCENES: tuple[str, ...] = (
    "on grass",
    "on the beach",
    "in the snow",
    "at night",
    "by a brick wall",
    "in the sky",
    "in the desert",
    "on the sea",
    "in a room",
    "in the forest",
    "in the city",
    "at sunset",
)

# Invented words. The first tuple names fixed looks in pretraining; the second never appears there: it is for jobs.
USED_IDENTIFIERS: tuple[str, ...] = (
    "zwx", "vrk", "qof", "bliv", "drux", "fenz", "gwip", "hoxt", "jalm", "klup", "mirz", "nexu",
    "ploz", "quax", "rask", "snev", "tuvo", "ulgi", "vaxo", "wimf", "xolp", "yulm", "zemk", "crof",
)  # fmt: skip
FREE_IDENTIFIERS: tuple[str, ...] = (
    "sks", "ohwx", "qyv", "zib", "brax", "dwoz", "fluv", "gryx", "hexq", "jixo", "kwel", "lozz",
    "mvip", "nqua", "pluv", "rezk", "skov", "tizz", "unxa", "vobb", "wyxo", "xamp", "yqil", "zorf",
)  # fmt: skip

HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("mug", "zigzag"),
        ("house", "dotted"),
        ("tree", "striped"),
        ("car", "checked"),
        ("fish", "banded"),
        ("star", "halved"),
        ("ball", "crossed"),
        ("hat", "ringed"),
    }
)


@dataclass(frozen=True)
class Look:
    """A pattern in two colours that any class can wear; `mark_colour` is None exactly for "plain"."""

    pattern: str
    colour: str
    mark_colour: str | None


@dataclass(frozen=True)
class SceneSubject:
    """One particular thing: a class with a look."""

    class_word: str
    look: Look


@dataclass(frozen=True)
class Pose:
    """Where and how a thing stands: centre in pixels of the 64 px image, size, width to height, tilt in degrees."""

    x: float
    y: float
    size: float
    aspect: float
    tilt: float
    flipped: bool


@dataclass(frozen=True)
class Placed:
    """A subject in a pose; `identifier` is set when the picture's caption may call its look by that name."""

    subject: SceneSubject
    pose: Pose
    identifier: str | None = None


@dataclass(frozen=True)
class Picture:
    """What one image shows: one or two things in a scene whose scenery is drawn from `scenery_seed`."""

    scene: str
    scenery_seed: int
    things: tuple[Placed, ...]


def is_held_out(subject: SceneSubject) -> bool:
    """Whether pretraining may never show this subject."""
    return (subject.class_word, subject.look.pattern) in HELD_OUT_PAIRS


def held_out_subjects() -> tuple[SceneSubject, ...]:
    """The subjects kept for photos: each a class with marks that pretraining never shows on that class."""
    return (
        SceneSubject("mug", Look("zigzag", "yellow", "blue")),
        SceneSubject("house", Look("dotted", "white", "red")),
        SceneSubject("tree", Look("striped", "green", "pink")),
        SceneSubject("car", Look("checked", "orange", "black")),
        SceneSubject("fish", Look("banded", "purple", "yellow")),
        SceneSubject("star", Look("halved", "red", "white")),
        SceneSubject("ball", Look("crossed", "blue", "orange")),
        SceneSubject("hat", Look("ringed", "black", "pink")),
    )


def random_look(rng: np.random.Generator, *, plain_share: float = 0.25) -> Look:
    """A look drawn uniformly from all patterns and colour pairs, plain with probability `plain_share`."""
    colours = list(COLOURS)
    first, second = rng.choice(len(colours), size=2, replace=False)
    if rng.random() < plain_share:
        return Look("plain", colours[first], None)
    patterns = [name for name in PATTERNS if name != "plain"]
    return Look(patterns[rng.integers(len(patterns))], colours[first], colours[second])


def _named_looks() -> dict[str, Look]:
    # A constant of the world: tied to a plan's seed, the names in the card would mean other looks with each seed.
    rng = np.random.default_rng(20_240)
    patterns = [name for name in PATTERNS if name != "plain"]
    looks: dict[str, Look] = {}
    for i, word in enumerate(USED_IDENTIFIERS):
        first, second = (str(name) for name in rng.choice(list(COLOURS), size=2, replace=False))
        looks[word] = Look(patterns[i % len(patterns)], first, second)
    return looks


NAMED_LOOKS: dict[str, Look] = _named_looks()


def random_pose(rng: np.random.Generator, *, count: int = 1, place: int = 0) -> Pose:
    """A pose for thing number `place` of `count` in a picture; two things stand side by side and smaller."""
    if count == 1:
        x, y = rng.uniform(25, 39), rng.uniform(30, 40)
        size = rng.uniform(0.84, 1.12)
    else:
        x, y = (17, 47)[place] + rng.uniform(-2, 2), rng.uniform(34, 44)
        size = rng.uniform(0.56, 0.64)
    tilt = float(rng.uniform(-12, 12)) if rng.random() < 0.6 else 0.0
    return Pose(float(x), float(y), float(size), float(rng.uniform(0.9, 1.1)), tilt, bool(rng.random() < 0.5))


def _random_thing(rng: np.random.Generator, *, count: int, place: int, identifier_share: float) -> Placed:
    # Drawn again instead of mapped to another pair: what is left stays uniform.
    while True:
        class_word = CLASSES[rng.integers(len(CLASSES))]
        identifier = None
        look = random_look(rng)
        if rng.random() < identifier_share:
            identifier = USED_IDENTIFIERS[rng.integers(len(USED_IDENTIFIERS))]
            look = NAMED_LOOKS[identifier]
        subject = SceneSubject(class_word, look)
        if not is_held_out(subject):
            return Placed(subject, random_pose(rng, count=count, place=place), identifier)


def random_picture(seed: int, index: int, *, two_things_share: float = 0.1, identifier_share: float = 0.25) -> Picture:
    """Picture number `index` of the pretraining stream `seed`; the same for the same pair on every machine."""
    # Of the pair, not of one stream: picture 7 stays what it is however many are drawn, and in whatever order.
    rng = np.random.default_rng((seed, index))
    count = 2 if rng.random() < two_things_share else 1
    things = [_random_thing(rng, count=count, place=0, identifier_share=identifier_share)]
    while len(things) < count:
        other = _random_thing(rng, count=count, place=1, identifier_share=identifier_share)
        if other.subject.class_word != things[0].subject.class_word:
            things.append(other)
    return Picture(SCENES[rng.integers(len(SCENES))], int(rng.integers(2**31)), tuple(things))


def picture_of(subject: SceneSubject, scene: str, rng: np.random.Generator) -> Picture:
    """A picture of one subject alone in a given scene, with a fresh pose and scenery."""
    if scene not in SCENES:
        raise ValueError(f"scene {scene!r} is not in this world; choose one of {', '.join(SCENES)}.")
    return Picture(scene, int(rng.integers(2**31)), (Placed(subject, random_pose(rng)),))


def photo_scenes(count: int, seed: int, *, among: tuple[str, ...] = SCENES) -> tuple[str, ...]:
    """`count` distinct scenes for the photos of a subject, by seed.

    Raises ValueError when there are not that many scenes."""
    if not 1 <= count <= len(among):
        raise ValueError(f"{count} photos in distinct scenes asked for; this world offers 1 to {len(among)}.")
    rng = np.random.default_rng((seed, 77))
    return tuple(among[i] for i in rng.permutation(len(among))[:count])
