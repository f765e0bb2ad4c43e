"""A disk that is full is named, nothing half-written is left on it, and it recovers by itself."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from storage.blobs.parts import PartialUploads
from storage.blobs.store import BlobStore
from storage.errors import DiskFull
from storage.settings import BlobSettings
from tests.full_disks import filled

BIG = os.urandom(3 * 2**20)
SMALL = os.urandom(2**19)


def files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_blob_store(disk: Path, tmp_path: Path) -> None:
    store = BlobStore(BlobSettings(url=(disk / "blobs").as_uri()))
    (tmp_path / "file").write_bytes(BIG)
    pieces = (BIG[start : start + 2**16] for start in range(0, len(BIG), 2**16))
    for put in (lambda: store.put(BIG), lambda: store.put_file(tmp_path / "file"), lambda: store.put_stream(pieces)):
        with pytest.raises(DiskFull, match="The blob store has no room left"):
            put()
        assert files(disk) == []
    with filled(disk, 2**18), pytest.raises(DiskFull):
        store.put(SMALL)
    assert store.read(store.put(SMALL).sha256) == SMALL  # as soon as there is room, without a restart


def test_the_folder_of_copies(disk: Path, tmp_path: Path) -> None:
    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    big, small = store.put(BIG), store.put(SMALL)
    cache = disk / "cache"
    with pytest.raises(DiskFull, match="copies of stored files has no room left"):
        store.fetch(big.sha256, cache / "deep" / "big")
    with pytest.raises(DiskFull, match="copies of stored files has no room left"):
        store.fetch_folder({"small": small.sha256, "unet/big": big.sha256}, cache / "base")
    assert files(disk) == []
    assert not (cache / "base").exists()
    folder = store.fetch_folder({"small": small.sha256}, cache / "base")
    assert (folder / "small").read_bytes() == SMALL


def test_a_disk_without_room_for_one_name(disk: Path, tmp_path: Path) -> None:
    """Not even a folder can be made: tmpfs counts these too."""
    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    small = store.put(SMALL)
    with filled(disk, 0):
        with pytest.raises(DiskFull):
            store.fetch(small.sha256, disk / "cache" / "copy")
        assert [path.name for path in files(disk)] == ["filler"]
    store.fetch(small.sha256, disk / "cache" / "copy")


def test_unfinished_uploads(disk: Path) -> None:
    """What was received stays received, and the upload goes on where it was."""
    parts, identity = PartialUploads(disk / "model-uploads"), uuid4()
    parts.create(identity)
    with parts.hold(identity) as part:
        part.go_on_at(0).take(SMALL)
        part.sync()
    full = pytest.raises(DiskFull, match="unfinished uploads has no room left")
    with filled(disk, 2**17), parts.hold(identity) as part, full:
        part.go_on_at(len(SMALL)).take(BIG[: 2**18])
    with parts.hold(identity) as part:
        part.go_on_at(len(SMALL)).take(BIG[: 2**18])
        part.sync()
        assert part.path.read_bytes() == SMALL + BIG[: 2**18]
