"""Zip archives cannot lie: each hostile one is refused by name, each honest one is unpacked whole."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.blobs.archives import ArchiveLimits, unpack_photos
from storage.errors import ArchiveRefused

LIMITS = ArchiveLimits(max_images=20, max_image_bytes=50_000, max_unpacked_bytes=200_000)
PHOTO = b"pretend this is a photo" * 20


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def linked(kind: int) -> zipfile.ZipInfo:
    """An entry that says it is a link, a device, ..."""
    entry = zipfile.ZipInfo("a.png")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    return entry


def replaced(content: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    """The archive with some of its bytes changed; they must be there."""
    assert old in content
    return content.replace(old, new, count)


def directory_only(content: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with bytes changed behind the start of its central directory."""
    at = content.index(b"PK\x01\x02")
    return content[:at] + replaced(content[at:], old, new)


def flagged(content: bytes, bit: int) -> bytes:
    """The archive with a flag set in the local header and the directory."""
    result = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(mark) + offset
        result[at : at + 2] = struct.pack("<H", struct.unpack_from("<H", content, at)[0] | bit)
    return bytes(result)


def shared_bytes() -> bytes:
    """Two directory entries over the bytes of one (the quine and overlap bombs)."""
    content = zipped(("a.png", PHOTO))
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    both = entry + entry.replace(b"a.png", b"b.png")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(both), start, 0)
    return content[:start] + both + tail


def says_less() -> bytes:
    """200 kB of zeros that says, in both headers, that it is 10 bytes."""
    content = zipped(("a.png", b"\0" * 200_000))
    return content.replace(struct.pack("<L", 200_000), struct.pack("<L", 10))


def claims(entries: int) -> bytes:
    """An empty archive that claims so many entries."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, 0, 0, 0)


ONE = zipped(("a.png", PHOTO))
REFUSED: dict[str, tuple[Callable[[], bytes] | bytes, str]] = {
    "text": (b"I am no archive" * 10, "not_a_zip"),
    "nothing": (b"", "not_a_zip"),
    "cut short": (ONE[:-30], "not_a_zip"),
    "parent": (zipped(("../a.png", PHOTO)), "unsafe_name"),
    "hidden parent": (zipped(("x/../../a.png", PHOTO)), "unsafe_name"),
    "absolute": (zipped(("/etc/a.png", PHOTO)), "unsafe_name"),
    "drive": (zipped(("C:/a.png", PHOTO)), "unsafe_name"),
    "backslash": (zipped(("..\\a.png", PHOTO)), "unsafe_name"),
    "NUL in name": (replaced(ONE, b"a.png", b"a\0png"), "unsafe_name"),
    "newline in name": (zipped(("a\n.png", PHOTO)), "unsafe_name"),
    "very long name": (zipped(("a" * 900 + "/" + "b" * 200 + ".png", PHOTO)), "unsafe_name"),
    "a place and no file": (zipped((".", PHOTO)), "unsafe_name"),
    "symlink": (zipped((linked(stat.S_IFLNK), b"/etc/passwd")), "not_a_file"),
    "device": (zipped((linked(stat.S_IFCHR), b"")), "not_a_file"),
    "pipe": (zipped((linked(stat.S_IFIFO), b"")), "not_a_file"),
    "encrypted": (flagged(ONE, 0x01), "encrypted"),
    "strongly encrypted": (flagged(ONE, 0x41), "encrypted"),
    "nested": (zipped(("inner.zip", ONE)), "nested_archive"),
    "nested tar": (zipped(("inner.tar.gz", b"x")), "nested_archive"),
    "twice the same": (
        lambda: replaced(zipped(("a.png", PHOTO), ("b.png", PHOTO)), b"b.png", b"a.png"),
        "duplicate_name",
    ),
    "same but for case": (zipped(("a.png", PHOTO), ("A.PNG", PHOTO)), "duplicate_name"),
    "same but for accents": (zipped(("\u00e9.png", PHOTO), ("e\u0301.png", PHOTO)), "duplicate_name"),
    "folder and file of one name": (zipped(("a.png/", b""), ("a.png", PHOTO)), "duplicate_name"),
    "one path written in two ways": (zipped(("a.png", PHOTO), (".//a.png", PHOTO)), "duplicate_name"),
    "too many images": (zipped(*((f"{n}.png", PHOTO) for n in range(21))), "too_many_images"),
    "too many entries": (zipped(*((f"{n}/", b"") for n in range(300))), "too_many_entries"),
    "claims 60,000": (claims(60_000), "too_many_entries"),
    "zip64": (claims(0xFFFF), "unusual_zip"),
    "bomb by header": (zipped(*((f"{n}.png", b"\0" * 49_000) for n in range(6))), "bomb"),
    "one image too large": (zipped(("a.png", b"\0" * 60_000)), "image_too_large"),
    "bomb that lies": (says_less, "broken"),
    "shared bytes": (shared_bytes, "lying_zip"),
    "other name inside": (directory_only(ONE, b"a.png", b"b.png"), "lying_zip"),
    "bytes before": (b"#!/bin/sh\n" + ONE, "lying_zip"),
    "bytes behind": (ONE + b"more", "lying_zip"),
    "archive in a comment": (ONE + ONE, "lying_zip"),
    "executable": (zipped(("a.png", PHOTO), ("run.exe", b"MZ")), "not_an_image"),
    "text file": (zipped(("notes.txt", b"hello")), "not_an_image"),
    "no suffix": (zipped(("photo", PHOTO)), "not_an_image"),
    "HEIC": (zipped(("IMG_1.HEIC", PHOTO)), "not_an_image"),
    "bzip2": (zipped(("a.png", PHOTO), method=zipfile.ZIP_BZIP2), "unusual_zip"),
    "lzma": (zipped(("a.png", PHOTO), method=zipfile.ZIP_LZMA), "unusual_zip"),
    "changed byte": (lambda: ONE[:45] + bytes([ONE[45] ^ 0xFF]) + ONE[46:], "broken"),
    "wrong checksum": (
        lambda: zipped(("a.png", PHOTO), method=zipfile.ZIP_STORED).replace(PHOTO[:4], b"PRET", 1),
        "broken",
    ),
}


def unpack(content: bytes, folder: Path) -> list[tuple[str, bytes]]:
    """What is in an archive, by its paths there."""
    (folder / "archive.zip").write_bytes(content)
    inside = folder / "inside"
    inside.mkdir(exist_ok=True)
    return [(entry.name, entry.path.read_bytes()) for entry in unpack_photos(folder / "archive.zip", inside, LIMITS)]


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_archives_are_refused(name: str, tmp_path: Path):
    made, reason = REFUSED[name]
    with pytest.raises(ArchiveRefused) as refusal:
        unpack(made() if callable(made) else made, tmp_path)
    assert refusal.value.reason == reason
    written = sum(path.stat().st_size for path in (tmp_path / "inside").iterdir())
    assert written <= LIMITS.max_unpacked_bytes
    assert {path.name for path in tmp_path.iterdir()} == {"archive.zip", "inside"}


HONEST = {
    "one": (ONE, ["a.png"]),
    "empty": (zipped(), []),
    "stored": (zipped(("a.jpg", PHOTO), method=zipfile.ZIP_STORED), ["a.jpg"]),
    "folders": (zipped(("me/", b""), ("me/a.JPEG", PHOTO), ("me/b.webp", PHOTO)), ["me/a.JPEG", "me/b.webp"]),
    "dots in names": (zipped(("a..b.png", PHOTO), ("...png", PHOTO)), ["a..b.png", "...png"]),
    "parts that lead nowhere": (zipped(("./", b""), ("./a.png", PHOTO), ("b//c.png", PHOTO)), ["a.png", "b/c.png"]),
    "accents": (zipped(("Straße/photo é.png", PHOTO)), ["Straße/photo é.png"]),
    "what macOS adds": (
        zipped(("a.png", PHOTO), ("__MACOSX/._a.png", b"x"), (".DS_Store", b"x"), ("sub/.DS_Store", b"x")),
        ["a.png"],
    ),
    "what Windows adds": (zipped(("a.png", PHOTO), ("Thumbs.db", b"x"), ("desktop.ini", b"x")), ["a.png"]),
    "a comment": (ONE[:-2] + struct.pack("<H", 5) + b"hello", ["a.png"]),
    "the limit": (zipped(*((f"{n}.png", PHOTO) for n in range(20))), [f"{n}.png" for n in range(20)]),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_archives_are_unpacked_in_order(name: str, tmp_path: Path):
    content, expected = HONEST[name]
    assert unpack(content, tmp_path) == [(entry, PHOTO) for entry in expected]


def test_an_archive_written_to_a_pipe_is_taken(tmp_path: Path):
    """Such writers put sizes behind the bytes, since they cannot go back."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece) -> int:
            self.content += piece
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", PHOTO)
    assert unpack(bytes(pipe.content), tmp_path) == [("a.png", PHOTO)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_changed_archives_are_refused_or_give_the_same_photos(at: int, value: int, cut: int, tmp_path: Path):
    content = bytearray(zipped(("a.png", PHOTO), ("b.png", PHOTO[::-1])))
    content[at % len(content)] = value
    try:
        unpacked = unpack(bytes(content[: len(content) - cut]), tmp_path)
    except ArchiveRefused:
        return
    assert [photo for _, photo in unpacked] in ([PHOTO, PHOTO[::-1]], [PHOTO[::-1], PHOTO], [PHOTO], [])


def test_the_messages_say_which_entry_and_what_to_do(tmp_path: Path):
    with pytest.raises(ArchiveRefused, match=r"'IMG_1.HEIC': export heic files as JPEG or PNG first"):
        unpack(zipped(("IMG_1.HEIC", PHOTO)), tmp_path)
