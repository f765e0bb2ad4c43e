"""Parts of uploads on the disk: held by one at a time, and never more of them than was acknowledged."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from storage.blobs.parts import PartialUploads
from storage.errors import NotFound, UploadBusy


@pytest.fixture
def parts(tmp_path: Path) -> PartialUploads:
    """No upload yet."""
    return PartialUploads(tmp_path / "parts")


def test_what_was_never_acknowledged_is_cut_off(parts: PartialUploads):
    identity = uuid4()
    parts.create(identity)
    with parts.hold(identity) as part:
        part.go_on_at(0).take(b"received, and more")
    with parts.hold(identity) as part:
        part.go_on_at(8)
        assert part.path.read_bytes() == b"received"
        part.take(b"!")
        part.sync()
        assert part.start(100) == b"received!"


def test_one_holds_a_part_at_a_time(parts: PartialUploads):
    identity = uuid4()
    parts.create(identity)
    with parts.hold(identity), pytest.raises(UploadBusy), parts.hold(identity):
        raise AssertionError
    with parts.hold(identity):
        pass


def test_what_is_not_there_cannot_be_held(parts: PartialUploads):
    with pytest.raises(NotFound), parts.hold(uuid4()):
        raise AssertionError


def test_a_part_that_lost_bytes_says_so(parts: PartialUploads):
    identity = uuid4()
    parts.create(identity)
    with parts.hold(identity) as part, pytest.raises(EOFError, match="0 of 1 bytes"):
        part.go_on_at(1)


def test_only_what_rested_is_old(parts: PartialUploads, tmp_path: Path):
    old, young, odd = uuid4(), uuid4(), tmp_path / "parts/not an upload"
    for identity in (old, young):
        parts.create(identity)
        with parts.hold(identity) as part:
            part.go_on_at(0)
    odd.mkdir()
    for path in (*(tmp_path / f"parts/{old}").iterdir(), tmp_path / f"parts/{old}", odd, tmp_path / f"parts/{young}"):
        os.utime(path, (0, 0))
    assert list(parts.older_than(3600)) == [old]
    parts.remove(old)
    assert list(parts.older_than(3600)) == []
