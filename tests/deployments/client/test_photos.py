"""Which files of a folder are photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.client.photos import find_photos
from deployments.client.remote_reads import NoPhotos
from storage.errors import ArchiveRefused
from storage.settings import UploadSettings
from tests.platform_api.door import photo
from tests.storage.blobs.test_archives import zipped


def test_photos_and_archives_are_taken_in_order_and_the_rest_is_named(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "d.zip", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()

    found = find_photos(str(tmp_path), UploadSettings())

    assert [photo.name for photo in found.photos] == ["a.png", "b.JPG", "c.webp", "d.zip"]
    assert [reason.split()[0] for reason in found.left_out] == ["deeper", "notes.txt"]


def test_an_archive_is_a_place_too_and_what_is_unpacked_of_it_goes(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    archive.write_bytes(zipped(("a.png", photo(1)), ("b.png", photo(2)), ("b.txt", b"at sea")))

    found = find_photos(f"file://{archive}", UploadSettings())

    assert [(one.name, one.caption) for one in found.photos] == [("a.png", ""), ("b.png", "at sea")]
    unpacked = found.photos[0].path
    assert unpacked.read_bytes() == photo(1)
    del found
    assert not unpacked.exists()


def test_an_archive_that_lies_is_refused_here_already(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(zipped(("../a.png", photo(1))))

    with pytest.raises(ArchiveRefused, match=r"photos.zip: '../a.png' is not a plain relative name"):
        find_photos(str(tmp_path / "photos.zip"), UploadSettings())


def test_too_many_photos_are_refused_before_one_is_read(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").touch()

    with pytest.raises(NoPhotos, match=r"4 files in .*; the limit is 3"):
        find_photos(str(tmp_path), UploadSettings(max_images=3))


def test_what_is_neither_a_file_nor_a_folder_holds_no_photos() -> None:
    with pytest.raises(NoPhotos, match="no photos in /dev/null"):
        find_photos("/dev/null", UploadSettings())


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoPhotos, match=r"there is no .*nowhere"):
        find_photos(str(tmp_path / "nowhere"), UploadSettings())
