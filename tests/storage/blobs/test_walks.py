"""A folder that somebody writes to is looked at without a failure, whatever goes meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.blobs.cached_folders import folders, remove_unfinished
from storage.blobs.walks import size_of, walk, written_at


@contextmanager
def churned(folder: Path) -> Iterator[None]:
    """Files and folders come and go in it all the time."""
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for name in ("a", "b", "c"):
                inner = folder / name / "inner"
                inner.mkdir(parents=True, exist_ok=True)
                for number in range(20):
                    (inner / str(number)).write_bytes(b"x")
            for name in ("a", "b", "c"):
                shutil.rmtree(folder / name)

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_a_folder_is_measured_while_its_files_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"x" * 1000)
    with churned(tmp_path):
        for _ in range(300):
            assert 1000 <= size_of(tmp_path) <= 1060
            assert written_at(tmp_path) is not None


def test_a_cache_is_listed_and_swept_while_copies_are_made_and_deleted(tmp_path: Path) -> None:
    with churned(tmp_path), churned(tmp_path / ".partial"):
        for _ in range(300):
            assert {copy.path.name for copy in folders(tmp_path)} <= {"a", "b", "c"}
            assert remove_unfinished(tmp_path, 3600.0) == 0


def test_what_is_gone_is_nothing_and_what_may_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(walk(tmp_path / "gone")) == []
    assert (size_of(tmp_path / "gone"), written_at(tmp_path / "gone")) == (0, None)
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert (size_of(tmp_path / "file"), size_of(tmp_path / "link")) == (5, 0)

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError):
        size_of(tmp_path)
