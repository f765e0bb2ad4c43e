"""The small world: the same picture for the same seed, and nothing of the held-out subjects in the stream."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from flows.starter.captions import EMPTY_SHARE, caption, scene_prompt
from flows.starter.renderer import render, render_photos
from flows.starter.world import (
    CLASSES,
    COLOURS,
    FREE_IDENTIFIERS,
    HELD_OUT_PAIRS,
    NAMED_LOOKS,
    PATTERNS,
    SCENES,
    USED_IDENTIFIERS,
    held_out_subjects,
    is_held_out,
    photo_scenes,
    picture_of,
    random_picture,
)


def digest(seed: int, count: int = 12) -> str:
    """SHA-256 of the pixels of the first pictures of a stream."""
    pixels = b"".join(render(random_picture(seed, index)).tobytes() for index in range(count))
    return hashlib.sha256(pixels).hexdigest()


def test_world_is_as_rich_as_the_card_says() -> None:
    assert len(CLASSES) >= 12
    assert len(COLOURS) >= 10
    assert len(PATTERNS) >= 8
    assert len(SCENES) >= 12
    assert len(held_out_subjects()) >= 6


def test_one_seed_gives_the_same_pixels_and_another_gives_others() -> None:
    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


def test_picture_of_the_stream_does_not_depend_on_its_neighbours() -> None:
    alone = random_picture(5, 40)

    in_order = [random_picture(5, index) for index in range(41)][-1]

    assert alone == in_order


def test_pretraining_stream_shows_no_held_out_pair() -> None:
    shown = [thing.subject for index in range(6000) for thing in random_picture(7, index).things]

    assert not any(is_held_out(subject) for subject in shown)
    worn = {(subject.class_word, subject.look.pattern) for subject in shown}
    assert len(worn) == len(CLASSES) * len(PATTERNS) - len(HELD_OUT_PAIRS)


def test_held_out_subjects_are_held_out() -> None:
    assert all(is_held_out(subject) for subject in held_out_subjects())
    assert len(set(held_out_subjects())) == len(held_out_subjects())


def test_captions_name_used_identifiers_and_never_free_ones() -> None:
    rng = np.random.default_rng(0)
    words = [caption(random_picture(7, index), rng) for index in range(6000)]

    spoken = {word for line in words for word in line.split()}
    assert spoken >= set(USED_IDENTIFIERS)
    assert not spoken & set(FREE_IDENTIFIERS)
    assert abs(sum(line == "" for line in words) / len(words) - EMPTY_SHARE) < 0.02


def test_named_look_is_the_same_on_every_class() -> None:
    pictures = (random_picture(7, index) for index in range(3000))
    named = [thing for picture in pictures for thing in picture.things if thing.identifier is not None]

    assert all(thing.subject.look == NAMED_LOOKS[thing.identifier] for thing in named if thing.identifier)
    assert len({thing.subject.class_word for thing in named if thing.identifier == USED_IDENTIFIERS[0]}) > 4


def test_photos_of_a_subject_are_in_distinct_scenes_and_repeatable() -> None:
    subject = held_out_subjects()[0]

    photos = render_photos(subject, count=5, seed=2)

    assert [scene for scene, _ in photos] == list(photo_scenes(5, 2))
    assert len({scene for scene, _ in photos}) == 5
    assert all(image.size == (64, 64) for _, image in photos)
    again = render_photos(subject, count=5, seed=2)
    assert [image.tobytes() for _, image in photos] == [image.tobytes() for _, image in again]


def test_unknown_scene_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="on the beach"):
        picture_of(held_out_subjects()[0], "on the moon", np.random.default_rng(0))
    with pytest.raises(ValueError, match="on the beach"):
        scene_prompt("sks", "mug", "on the moon")


def test_too_many_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="13 photos"):
        photo_scenes(13, seed=0)
