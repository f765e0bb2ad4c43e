"""Places for backups: folders, others, and ones that refuse."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.copies import copy_artifacts
from flows.upkeep.backup.verification import check_whole
from storage.blobs.store import BlobStore
from storage.errors import StoreUnavailable
from storage.settings import BlobSettings
from tests.flows.upkeep.backup.source import Source, newest, say


def test_backups_of_one_second_are_in_order_by_name(old: Source) -> None:
    made = [old.back_up().manifest.name for _ in range(3)]
    assert sorted(made) == made
    assert BackupStore(str(old.place)).newest() == made[-1]


def test_a_place_that_may_not_be_written_to_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest = newest(copy)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "remove", refuse)
    with pytest.raises(StoreUnavailable, match=rf"{store.url} does not respond \(PermissionError: .*may write to it"):
        store.delete(manifest.name)


def test_a_place_that_is_no_folder_holds_backups_too(old: Source) -> None:
    place = "memory://elsewhere/backups"
    first, second = back_up_to(old.stores, place, say), back_up_to(old.stores, place, say)
    assert first.copied.count == first.manifest.blobs.count > 0
    assert second.copied.count == 0
    store = BackupStore(place)
    assert store.finished() == sorted((first.manifest.name, second.manifest.name))
    check_whole(store, second.manifest.name)
    store.delete(first.manifest.name)
    assert store.newest() == second.manifest.name


def test_a_disk_that_does_not_respond_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(LocalFileSystem, "info", broken)
    with pytest.raises(StoreUnavailable):
        BackupStore(str(tmp_path)).finished()
    with pytest.raises(StoreUnavailable):
        copy_artifacts(tmp_path.as_uri(), BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri())), {})
