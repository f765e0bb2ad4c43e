"""darkroom demo, as far as it goes without a platform; the whole of it is the soak's."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from deployments.commands.demo import PHOTOS, draw_photos, in_english
from flows.training.starter.world import held_out_subjects


def test_the_photos_of_two_seeds_differ_and_each_is_a_file_of_its_own(tmp_path: Path) -> None:
    subject = held_out_subjects()[0]

    first = draw_photos(subject, tmp_path / "first", 1)
    second = draw_photos(subject, tmp_path / "second", 2)

    assert len({path.name for path in first}) == PHOTOS
    assert {path.read_bytes() for path in first}.isdisjoint(path.read_bytes() for path in second)
    assert all(Image.open(path).size == (64, 64) for path in first)


def test_a_subject_is_told_in_words() -> None:
    assert in_english(held_out_subjects()[0]) == "a zigzag yellow mug with blue"
