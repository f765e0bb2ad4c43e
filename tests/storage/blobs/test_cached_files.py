"""Small files that can be made again: what is read is what was written, or nothing; never more than they may be."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.blobs.cached_files import CachedFiles, shrink

NAME = "shared/" + "a" * 64


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files = CachedFiles(tmp_path / "place")
    assert files.read(NAME) is None
    files.write(NAME, b"latents")
    files.write(NAME, b"others")
    assert files.read(NAME) == b"others"
    assert [path.name for path in (tmp_path / "place" / "shared").iterdir()] == ["a" * 64]


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _another(path: Path) -> None:
    CachedFiles(path.parents[1]).write("shared/" + "b" * 64, b"of another key")
    path.with_name("b" * 64).replace(path)


@pytest.mark.parametrize("damage", [_torn, _emptied, _changed, _another])
def test_a_damaged_file_is_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    files = CachedFiles(tmp_path)
    files.write(NAME, b"latents")
    damage(tmp_path / NAME)
    assert files.read(NAME) is None
    assert not (tmp_path / NAME).exists()
    assert "is damaged and is made again" in caplog.text
    files.write(NAME, b"latents")
    assert files.read(NAME) == b"latents"


def test_a_full_disk_ends_the_writing_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = CachedFiles(tmp_path)
    files.write(NAME, b"latents")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for other in ("b", "c"):
        files.write("shared/" + other * 64, b"x")
    assert caplog.text.count("nothing more is kept in") == 1
    assert files.read(NAME) == b"latents"
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["a" * 64]


def test_a_disk_keeps_the_room_that_checkpoints_need(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CachedFiles(tmp_path, keep_free_bytes=2**62).write(NAME, b"latents")
    assert CachedFiles(tmp_path).read(NAME) is None
    assert "bytes would stay free" in caplog.text


def test_a_place_that_is_none_makes_nothing_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    files = CachedFiles(tmp_path / "file")
    files.write(NAME, b"latents")
    assert files.read(NAME) is None


def test_those_used_longest_ago_go_first(tmp_path: Path) -> None:
    files, now = CachedFiles(tmp_path), time.time()
    for place, other in enumerate("abcd"):
        files.write("shared/" + other * 64, b"x" * 68)
        os.utime(tmp_path / "shared" / (other * 64), (now - 100 + place, now - 100 + place))
    assert files.read("shared/" + "a" * 64) is not None  # used just now
    for name, age in ((".old", 90_000.0), (".new", 60.0)):
        (tmp_path / "shared" / name).write_bytes(b"half")
        os.utime(tmp_path / "shared" / name, (now - age, now - age))
    assert shrink(tmp_path, 200) == (3, 204, 200)
    assert sorted(path.name[:4] for path in (tmp_path / "shared").iterdir()) == [".new", "aaaa", "dddd"]
    assert shrink(tmp_path, 200) == (0, 0, 200)
    assert shrink(tmp_path / "nowhere", 200) == (0, 0, 0)


def _writer(place: Path, failed: Any, together: Any) -> None:
    files = CachedFiles(place)
    together.wait(60)
    for turn in range(300):
        name = f"shared/{turn % 5}"
        if files.read(name) not in (None, b"%d" % (turn % 5) * 10_000):
            failed.set()
        files.write(name, b"%d" % (turn % 5) * 10_000)
        if turn % 50 == 0:
            shrink(place, 20_000)


def test_two_processes_never_read_half_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Not a fork, which would have the threads' locks of whatever runs the tests.
    context = multiprocessing.get_context("spawn")
    failed, together = context.Event(), context.Barrier(2)
    other = context.Process(target=_writer, args=(tmp_path, failed, together))
    other.start()
    _writer(tmp_path, failed, together)
    other.join(60)
    assert (other.exitcode, failed.is_set()) == (0, False)
    assert "damaged" not in caplog.text
    assert shrink(tmp_path, 10**6)[0] == 0
    assert not [path for path in (tmp_path / "shared").iterdir() if path.name.startswith(".")]
