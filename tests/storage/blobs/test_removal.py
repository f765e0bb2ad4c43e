"""A removal that fails brings the bytes back, or says what is gone."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from storage.blobs import removal
from storage.blobs.store import BlobStore
from storage.errors import StoreUnavailable
from storage.settings import BlobSettings
from tests.storage.blobs.test_store import CONTENT, NAME


def test_a_removal_that_fails_brings_the_bytes_back(store: BlobStore) -> None:
    store.put(CONTENT)
    with pytest.raises(RuntimeError), store.removing(NAME):
        assert not store.exists(NAME)
        raise RuntimeError("the commit failed")
    assert store.read(NAME) == CONTENT
    assert store.sweep_unfinished(-60) == 0


def test_a_removal_that_fails_leaves_bytes_alone_that_were_put_meanwhile(store: BlobStore) -> None:
    store.put(CONTENT)
    with pytest.raises(RuntimeError), store.removing(NAME):
        store.put(CONTENT)
        raise RuntimeError("the commit failed")
    assert store.read(NAME) == CONTENT
    assert store.sweep_unfinished(-60) == 0


def test_a_removal_that_fails_says_nothing_of_a_blob_that_was_not_there(
    store: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError), store.removing(NAME):
        raise RuntimeError("the commit failed")
    assert not [record.message for record in caplog.records if NAME in record.message]


def test_bytes_that_cannot_be_put_back_are_named_with_their_place(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store.put(CONTENT)
    with pytest.raises(RuntimeError), store.removing(NAME):
        monkeypatch.setattr(store._fs, "cp_file", refused)
        monkeypatch.setattr(removal, "move", refused)
        raise RuntimeError("the commit failed")
    [said] = [record.message for record in caplog.records if NAME in record.message]
    assert "could not be put back" in said
    monkeypatch.undo()
    place = said.rsplit(" ", 1)[-1]
    assert store._fs.cat_file(place) == CONTENT


@pytest.fixture
def no_copy(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is full: nothing can be written beside what lies there."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.put(CONTENT)
    monkeypatch.setattr(store._fs, "cp_file", refused)
    monkeypatch.setattr(removal, "move", refused)


def logged_of_the_blob(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.message for record in caplog.records if NAME in record.message and record.levelno == level]


@pytest.mark.usefixtures("no_copy")
def test_a_full_store_is_emptied_without_a_copy(store: BlobStore, caplog: pytest.LogCaptureFixture) -> None:
    with store.removing(NAME):
        assert not store.exists(NAME)
    assert not store.exists(NAME)
    assert "no copy" in logged_of_the_blob(caplog, logging.WARNING)[0]
    assert logged_of_the_blob(caplog, logging.ERROR) == []


@pytest.mark.usefixtures("no_copy")
def test_a_removal_without_a_copy_that_fails_says_what_is_gone(
    store: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError), store.removing(NAME):
        raise RuntimeError("the commit failed")
    [said] = logged_of_the_blob(caplog, logging.ERROR)
    assert "is gone, and no copy" in said


@pytest.mark.usefixtures("no_copy")
@pytest.mark.parametrize("responds", [True, False])
def test_a_removal_without_a_copy_that_removed_nothing_says_so_only_where_it_is_not_known(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, responds: bool
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store._fs, "rm_file", broken)
    if not responds:
        monkeypatch.setattr(store._fs, "info", broken)
    with pytest.raises(StoreUnavailable), store.removing(NAME):
        pytest.fail("nothing was removed")
    said = logged_of_the_blob(caplog, logging.ERROR)
    assert [("could not be put back" in text) for text in said] == ([] if responds else [True])


def test_a_copy_that_was_made_before_its_disk_was_full_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def linked(source: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        os.link(source, target)
        raise OSError(errno.ENOSPC, "No space left on device")

    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    store.put(CONTENT)
    with monkeypatch.context() as full, pytest.raises(RuntimeError):
        full.setattr(removal, "move", linked)
        with store.removing(NAME):
            assert not store.exists(NAME)
            full.undo()
            raise RuntimeError("the commit failed")
    assert store.read(NAME) == CONTENT
    assert logged_of_the_blob(caplog, logging.ERROR) == []
    assert store.sweep_unfinished(-60) == 0


def test_a_disk_that_refuses_a_copy_for_another_reason_keeps_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    store.put(CONTENT)
    monkeypatch.setattr(removal, "move", refused)
    with pytest.raises(StoreUnavailable, match="Permission denied"), store.removing(NAME):
        pytest.fail("nothing was removed")
    assert store.read(NAME) == CONTENT


def test_a_removal_is_for_good_and_none_of_what_is_not_there(store: BlobStore) -> None:
    store.put(CONTENT)
    for _ in range(2):
        with store.removing(NAME):
            assert not store.exists(NAME)
    assert list(store.list()) == []
    assert store.sweep_unfinished(-60) == 0
