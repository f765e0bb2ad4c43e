"""Bytes are named by their hash, seen whole or not at all, and never silently changed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing, StoreUnavailable
from storage.settings import BlobSettings

CONTENT = os.urandom(100_000)
NAME = hashlib.sha256(CONTENT).hexdigest()


def test_what_was_put_is_read_back_under_its_hash(store: BlobStore, tmp_path: Path) -> None:
    blob = store.put(CONTENT)
    assert (blob.sha256, blob.size) == (NAME, len(CONTENT))
    assert store.read(NAME) == CONTENT
    store.fetch(NAME, tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == CONTENT


def test_lent_bytes_are_checked_and_take_no_room_on_the_stores_own_disk(
    url: str, store: BlobStore, tmp_path: Path
) -> None:
    store.put(CONTENT)
    target = tmp_path / "deep" / "lent"
    store.lend(NAME, target)
    assert target.read_bytes() == CONTENT
    with pytest.raises(BlobMissing):
        store.lend("0" * 64, tmp_path / "other")
    if not url.startswith("file:"):
        return
    blob = Path(url.removeprefix("file://")) / NAME[:2] / NAME
    assert target.stat().st_ino == blob.stat().st_ino
    blob.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(BlobCorrupted):
        store.lend(NAME, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_each_piece_that_is_copied_or_hashed_is_reported(url: str, tmp_path: Path) -> None:
    pieces: list[int] = []
    store = BlobStore(BlobSettings(url=url), piece_done=lambda: pieces.append(1))
    content = CONTENT * 24
    (tmp_path / "file").write_bytes(content)
    blob = store.put_file(tmp_path / "file")
    for copy in (
        lambda: store.put_file(tmp_path / "file"),
        lambda: store.fetch(blob.sha256, tmp_path / "fetched"),
        lambda: store.lend(blob.sha256, tmp_path / "lent"),
        lambda: store.fetch_folder({"a": blob.sha256}, tmp_path / "folder"),
    ):
        pieces.clear()
        copy()
        assert len(pieces) == 3


def test_the_same_bytes_are_one_object_however_they_came(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    pieces = iter([CONTENT[:7], CONTENT[7:]])
    assert store.put(CONTENT) == store.put_file(tmp_path / "file") == store.put_stream(pieces)
    assert [blob.sha256 for blob in store.list()] == [NAME]


def test_a_put_of_new_bytes_asks_nobody_and_one_that_finds_them_asks_before_it_relies_on_them(
    url: str, tmp_path: Path
) -> None:
    asked: list[str] = []
    store = BlobStore(BlobSettings(url=url), asked.append)
    (tmp_path / "file").write_bytes(CONTENT)
    store.put(CONTENT)
    assert asked == []
    for put in (
        lambda: store.put(CONTENT),
        lambda: store.put_stream(iter([CONTENT])),
        lambda: store.put_file(tmp_path / "file"),
        lambda: store.put_hashed(tmp_path / "file", NAME),
    ):
        put()
        assert asked == [NAME]
        asked.clear()


def test_bytes_that_are_gone_after_asking_are_written_anew(url: str, tmp_path: Path) -> None:
    other = BlobStore(BlobSettings(url=url))
    store = BlobStore(BlobSettings(url=url), other.delete)
    (tmp_path / "file").write_bytes(CONTENT)
    for put in (
        lambda: store.put(CONTENT),
        lambda: store.put_stream(iter([CONTENT])),
        lambda: store.put_hashed(tmp_path / "file", NAME),
    ):
        other.put(CONTENT)
        put()
        assert other.read(NAME) == CONTENT
    assert store.sweep_unfinished(-60) == 0


def test_a_put_that_may_not_ask_leaves_nothing_half_written(url: str) -> None:
    def away(_: str) -> None:
        raise StoreUnavailable("Postgres does not respond.")

    store = BlobStore(BlobSettings(url=url), away)
    store.put(CONTENT)
    for put in (lambda: store.put(CONTENT), lambda: store.put_stream(iter([CONTENT]))):
        with pytest.raises(StoreUnavailable):
            put()
    assert store.sweep_unfinished(-60) == 0
    assert store.read(NAME) == CONTENT


def test_a_listing_says_the_names_in_order_with_their_sizes_and_ages(url: str) -> None:
    ahead = 0.0
    store = BlobStore(BlobSettings(url=url), clock=lambda: time.time() + ahead)
    contents = [bytes([number]) * (number + 1) for number in range(5)]
    names = {store.put(content).sha256: len(content) for content in contents}
    ahead = 3600.0
    listed = list(store.list())
    assert [(blob.sha256, blob.size) for blob in listed] == sorted(names.items())
    assert all(3590 < blob.age_seconds < 3700 for blob in listed)
    age = store.age_seconds(next(iter(names)))
    assert age is not None
    assert 3590 < age < 3700
    assert store.age_seconds(NAME) is None


def test_two_writers_of_the_same_bytes_leave_one_object(store: BlobStore) -> None:
    """The second finds the name taken at its very end."""

    def pieces() -> Iterator[bytes]:
        yield CONTENT[:7]
        store.put(CONTENT)
        yield CONTENT[7:]

    assert store.put_stream(pieces()).sha256 == NAME
    assert store.read(NAME) == CONTENT
    assert [blob.sha256 for blob in store.list()] == [NAME]
    assert store.sweep_unfinished(-60) == 0


def test_names_are_on_the_disk_before_a_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a file's own fsync is worth nothing without that of the folder that names it."""
    calls: list[str] = []
    sync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        calls.append(f"sync {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), tmp_path)}")
        sync(descriptor)

    def linked(source: str, target: str) -> None:
        calls.append(f"name {os.path.relpath(target, tmp_path)}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    folder = f"blobs/{NAME[:2]}"

    store.put(CONTENT)
    assert calls[0].startswith("sync blobs/.incoming/")
    assert calls[1:] == ["sync blobs", f"name {folder}/{NAME}", f"sync {folder}"]
    calls.clear()
    store.put(CONTENT)  # whoever put them may not have come that far
    assert calls == [f"sync {folder}"]


def test_a_gone_blob_says_so_and_deleting_it_again_is_no_error(store: BlobStore) -> None:
    store.put(CONTENT)
    store.delete(NAME)
    store.delete(NAME)
    assert not store.exists(NAME)
    with pytest.raises(BlobMissing, match=NAME):
        store.read(NAME)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 63, "/" * 64, "a" * 63 + "/"])
def test_a_name_that_is_no_hash_reaches_no_file(store: BlobStore, name: str) -> None:
    with pytest.raises(BlobMissing):
        store.read(name)


def test_a_flipped_bit_is_noticed_and_leaves_no_copy(tmp_path: Path) -> None:
    store = BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri()))
    store.put(CONTENT)
    file = tmp_path / "blobs" / NAME[:2] / NAME
    file.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(BlobCorrupted, match=NAME):
        store.read(NAME)
    with pytest.raises(BlobCorrupted, match=NAME):
        store.fetch(NAME, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == [tmp_path / "blobs"]


def test_a_writer_that_fails_leaves_nothing(store: BlobStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield CONTENT
        raise RuntimeError("the client went away")

    with pytest.raises(RuntimeError):
        store.put_stream(pieces())
    assert list(store.list()) == []
    assert store.sweep_unfinished(0) == 0


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    url = (tmp_path / "blobs").as_uri()
    program = (
        "import sys, time\n"
        "from storage.blobs.store import BlobStore\n"
        "from storage.settings import BlobSettings\n"
        "def pieces():\n"
        "    for _ in range(1000):\n"
        "        yield bytes(100_000)\n"
        "        print('.', flush=True)\n"
        "        time.sleep(0.01)\n"
        f"BlobStore(BlobSettings(url={url!r})).put_stream(pieces())\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(3):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = BlobStore(BlobSettings(url=url))
    assert list(store.list()) == []
    time.sleep(0.05)
    assert store.sweep_unfinished(0.01) == 1


def test_a_folder_is_made_whole_or_not_at_all(store: BlobStore, tmp_path: Path) -> None:
    one, two = store.put(b"one"), store.put(b"two")
    files = {"unet/config.json": one.sha256, "model_index.json": two.sha256}
    folder = store.fetch_folder(files, tmp_path / "cache" / "base")
    assert (folder / "unet" / "config.json").read_bytes() == b"one"
    with pytest.raises(BlobMissing):
        store.fetch_folder({**files, "gone": "0" * 64}, tmp_path / "cache" / "other")
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["base"]
