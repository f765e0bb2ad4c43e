"""The hashes of a model file are the same however its bytes are cut, and after a restart."""

from __future__ import annotations

import hashlib
import random
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.blobs.hashing import ModelHasher, hash_again, hash_on

HEADER = b'{"__metadata__":{}}'
CONTENT = len(HEADER).to_bytes(8, "little") + HEADER + random.Random(6).randbytes(0x118000)


def expected(content: bytes) -> tuple[str, str | None, str | None, str | None, str | None]:
    """The hashes by their definitions, from all the bytes at once."""
    data = content[8 + int.from_bytes(content[:8], "little") :] if len(content) >= 8 else b""
    return (
        hashlib.sha256(content).hexdigest(),
        hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8].upper(),
        hashlib.sha256(data).hexdigest()[:12].upper(),
        f"{zlib.crc32(content):08X}",
        blake3(content).hexdigest().upper(),
    )


def found(hasher: ModelHasher) -> tuple[str, str | None, str | None, str | None, str | None]:
    """The same hashes as `expected` names, from a hasher."""
    sha256, hashes = hasher.finish()
    return sha256, hashes.auto_v1, hashes.auto_v3, hashes.crc32, hashes.blake3


CUTS = st.lists(st.integers(0, len(CONTENT)) | st.integers(0, 40) | st.integers(0xFFFF0, 0x110010), max_size=8)


@given(cuts=CUTS)
@settings(max_examples=60, deadline=None)
def test_hashes_do_not_depend_on_where_the_file_is_cut(cuts: list[int]) -> None:
    hasher = ModelHasher()

    for begin, end in pairwise([0, *sorted(cuts), len(CONTENT)]):
        hasher.take(CONTENT[begin:end])

    assert found(hasher) == expected(CONTENT)


@pytest.mark.parametrize("length", [0, 7, 8, 30, 0x100000, 0x100001, 0x110000])
def test_short_files_have_all_hashes(length: int) -> None:
    hasher = ModelHasher()
    hasher.take(CONTENT[:length])

    assert found(hasher) == expected(CONTENT[:length])


def test_after_a_restart_what_is_on_disk_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(CONTENT[:0x108000] + b"never acknowledged")

    hasher = hash_again(path, 0x108000)
    hasher.take(CONTENT[0x108000:])

    assert found(hasher) == expected(CONTENT)


def test_a_hasher_catches_up_with_what_others_wrote(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(CONTENT)
    hasher = ModelHasher()
    hasher.take(CONTENT[:1000])
    before = hasher.copy()

    assert found(hash_on(hasher, path, len(CONTENT))) == expected(CONTENT)
    assert found(before) == expected(CONTENT[:1000])
    assert found(hash_on(before, path, 2000)) == expected(CONTENT[:2000])


def test_a_part_that_lost_bytes_is_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(CONTENT[:100])

    with pytest.raises(EOFError, match="100 bytes, not 101"):
        hash_again(path, 101)
