"""Copies on this machine: whole or not there, never deleted while a process uses them, the longest unused first."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.blobs import cached_folders
from storage.blobs.cached_folders import folders, leave, remove_unfinished, remove_unless_used, use
from storage.blobs.store import BlobStore
from storage.settings import BlobSettings
from tests.files import unused_for

USER = """
import sys, time; from pathlib import Path
from storage.blobs import cached_folders
from storage.blobs.store import BlobStore
from storage.settings import BlobSettings
cached_folders.use(BlobStore(BlobSettings(url=sys.argv[1])), {"a/weights": sys.argv[2]}, Path(sys.argv[3]))
print("used", flush=True)
time.sleep(60)
"""
CONTENT = b"w" * 1000
NAME = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """A store with one blob."""
    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    store.put(CONTENT)
    return store


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A place of the cache; what this process uses of it is let go at the end."""
    yield tmp_path / "cache"
    release_all()


def release_all() -> None:
    """Let go of what this process uses, which otherwise lasts until it ends."""
    held = cached_folders._held
    while held:
        os.close(held.popitem()[1])


def test_a_folder_that_another_process_uses_stays_until_that_is_dead(
    blobs: BlobStore, place: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", USER, (tmp_path / "blobs").as_uri(), NAME, str(place / "base")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"used\n"
        assert not remove_unless_used(place / "base")
        assert (place / "base" / "a" / "weights").read_bytes() == CONTENT
        user.kill()
        user.wait()
    assert remove_unless_used(place / "base")
    assert list(place.iterdir()) == []


def test_what_this_process_uses_stays_until_it_is_let_go_and_comes_again(blobs: BlobStore, place: Path) -> None:
    assert use(blobs, {"w": NAME}, place / "base") == place / "base"
    use(blobs, {"w": NAME}, place / "base")
    assert not remove_unless_used(place / "base")
    release_all()
    assert remove_unless_used(place / "base")
    assert remove_unless_used(place / "base")
    use(blobs, {"w": NAME}, place / "base")
    assert (place / "base" / "w").read_bytes() == CONTENT


def test_whoever_uses_a_folder_finds_it_whole_however_often_it_is_deleted(
    blobs: BlobStore, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_folders, "TRIES", 1000)
    ended, deleted = threading.Event(), 0

    def delete() -> None:
        nonlocal deleted
        while not ended.is_set():
            deleted += (place / "base").exists() and remove_unless_used(place / "base")

    deleting = threading.Thread(target=delete)
    deleting.start()
    for number in range(150):
        use(blobs, {"w": NAME, "deep/w": NAME}, place / "base")
        assert [(place / "base" / name).read_bytes() for name in ("w", "deep/w")] == [CONTENT, CONTENT]
        release_all()
        time.sleep(0.001 * (number % 4))
    ended.set()
    deleting.join()
    assert deleted > 10


def test_a_folder_that_was_left_may_be_deleted(blobs: BlobStore, place: Path) -> None:
    folder = use(blobs, {"w": NAME}, place / "base")
    assert not remove_unless_used(folder)

    leave(folder)
    leave(folder)

    assert remove_unless_used(folder)
    assert use(blobs, {"w": NAME}, folder).exists()


def test_folders_come_with_their_size_the_longest_unused_first_and_none_older_than_its_clock(
    blobs: BlobStore, place: Path
) -> None:
    for name, idle in (("young", 10), ("old", 1000), ("tomorrow", -86400)):
        use(blobs, {"w": NAME}, place / name)
        unused_for(place / name, idle)
    (place / ".half.made").mkdir()
    found = folders(place)
    assert [(copy.path.name, copy.size) for copy in found] == [("old", 1000), ("young", 1000), ("tomorrow", 1000)]
    assert found[-1].idle_seconds == 0
    use(blobs, {"w": NAME}, place / "old")
    assert folders(place)[-1].path.name in ("old", "tomorrow")


def test_what_was_half_made_by_a_process_that_died_goes_when_it_is_old(place: Path) -> None:
    for name, idle in ((".base.1", 100_000), (".base.2", 10)):
        (place / name).mkdir(parents=True)
        (place / name / "w").write_bytes(CONTENT)
        for path in (place / name / "w", place / name):
            unused_for(path, idle)
    assert remove_unfinished(place, 86400) == 1
    assert [path.name for path in place.iterdir()] == [".base.2"]
