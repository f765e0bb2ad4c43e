"""Which files of a folder are photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.client.photos import NoPhotos, find_photos


def test_photos_and_archives_are_taken_in_order_and_the_rest_is_named(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "d.zip", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()

    found = find_photos(tmp_path, maximum=10)

    assert [photo.name for photo in found.photos] == ["a.png", "b.JPG", "c.webp", "d.zip"]
    assert [reason.split()[0] for reason in found.left_out] == ["deeper", "notes.txt"]


def test_one_archive_is_a_place_too(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.touch()

    assert [photo.path for photo in find_photos(archive, maximum=1).photos] == [archive]


def test_too_many_photos_are_refused_before_one_is_read(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").touch()

    with pytest.raises(NoPhotos, match=r"4 files in .*; the limit is 3"):
        find_photos(tmp_path, maximum=3)


def test_what_is_neither_a_file_nor_a_folder_holds_no_photos() -> None:
    with pytest.raises(NoPhotos, match="no photos in /dev/null"):
        find_photos(Path("/dev/null"), maximum=3)


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoPhotos, match=r"there is no .*nowhere"):
        find_photos(tmp_path / "nowhere", maximum=3)
