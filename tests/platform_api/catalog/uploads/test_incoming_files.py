"""With a full disk the door returns 507 and says which place is full; with room again all goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.settings import QuotaSettings
from tests.full_disks import MIB, filled, small_disk
from tests.platform_api.door import Door, form, photo, serving, upload
from tests.platform_api.sending import a_sender, weights

PHOTOS = [(f"{seed}.png", photo(seed, (512, 512))) for seed in range(3)]
"""0.75 MiB each, and as much again as canonical images."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16) as folder:
        yield folder


@pytest.fixture
def door(disk: Path, database_url: str) -> Iterator[Door]:
    # Where free space is looked at beforehand nothing comes this far: another test's matter.
    with serving(disk, database_url, quotas=QuotaSettings(free_space_bytes=0)) as opened:
        yield opened


def left_over(door: Door) -> list[str]:
    """Files that are neither whole blobs nor received bytes."""
    folder = door.settings.data_folder
    return [str(path) for path in folder.rglob("*") if path.is_file() and {".incoming", "uploads"} & set(path.parts)]


def test_an_upload_in_parts_goes_on_where_it_was(door: Door, disk: Path) -> None:
    sender, content = a_sender(door), weights(numbers=1_500_000)
    path = sender.begin(len(content))
    assert sender.send(path, 0, content[:MIB]).status_code == 204
    with filled(disk, MIB // 2):
        refused = sender.send(path, MIB, content[MIB:])
        assert refused.status_code == 507, refused.text
        assert refused.json()["code"] == "disk_full"
        assert "unfinished uploads has no room left" in refused.json()["detail"]
        assert door.client().get("/api/v1/models").status_code == 200
        offset = sender.offset(path)
        assert MIB <= offset < len(content)
    assert sender.send(path, offset, content[offset:]).status_code == 204
    [(_, sha256)] = sender.files()
    assert sender.http.get(sender.http.get(path).json()["file"]["url"]).content == content
    assert [blob.name for blob in door.blobs] == [sha256]


@pytest.mark.parametrize("leaving", [0, MIB, 3 * MIB, 5 * MIB])
def test_photos_are_taken_whole_or_not_at_all(door: Door, disk: Path, leaving: int) -> None:
    """Wherever the disk ends: as they come, as canonical images are made of them, as these are stored."""
    client = door.client()
    with filled(disk, leaving):
        refused = client.post("/api/v1/data-sets", files=form(*PHOTOS))
        assert refused.status_code == 507, refused.text
        assert refused.json()["code"] == "disk_full"
        assert "has no room left" in refused.json()["detail"]
        assert left_over(door) == []
        assert client.get("/api/v1/data-sets").json()["items"] == []
    upload(client)
