"""Zip archives of photos and their captions, read so that every reader would see the same, and never more than allowed.

`zipfile` trusts what an archive says of itself. Here the central directory is checked before it is parsed, local
headers must agree with it, entries may not overlap, and unpacking counts the bytes that really come out.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from storage.errors import ArchiveRefused
from storage.records.jobs.photos.photo_layouts import SUFFIXES

_LINES = ".jsonl"
_DESCRIPTIONS = frozenset({_LINES, ".toml"})
_MAX_LINES_BYTES, _MAX_TEXT_BYTES = 1024 * 1024, 64 * 1024
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_JUNK_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_PIECE = 256 * 1024
# Below this size a high ratio does no harm.
_RATIO_COUNTS_FROM = 64 * 1024 * 1024
_MAX_RATIO = 50
# The end record and the local header, as APPNOTE.TXT of PKWARE lays them out (4.3.16 and 4.3.7).
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may be: entries that are images, bytes of one, bytes of all."""

    max_images: int
    max_image_bytes: int
    max_unpacked_bytes: int


@dataclass(frozen=True)
class Unpacked:
    """One file from an archive: its path there, without empty and `.` parts, and where it is now."""

    name: str
    path: Path


def unpack_photos(archive: Path, folder: Path, limits: ArchiveLimits) -> list[Unpacked]:
    """Write the photos of a zip archive, and what describes them, into `folder` under names of our own, in its order.

    What describes them: captions in files that are called as a photo beside them, `.jsonl` and `.toml` files.
    Raises ArchiveRefused with a stable reason. What was written before a refusal stays in `folder` for the caller to
    remove; it is never more than `limits.max_unpacked_bytes` and one piece.
    """
    with archive.open("rb") as stream:
        _check_ends(stream, limits)
        try:
            with zipfile.ZipFile(stream) as opened:
                entries = _photos(opened, limits)
                _check_layout(stream, opened)
                return list(_write(opened, entries, folder, limits))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            struct.error,
            OSError,
            ValueError,
            NotImplementedError,
        ) as error:
            # With a number it is the disk's own error, and no fault of the archive.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ArchiveRefused("broken", "The zip archive is damaged. Make it again.") from error


def _check_ends(stream: BinaryIO, limits: ArchiveLimits) -> None:
    """Nothing before the first entry or after the last record, and a directory of a size that is worth parsing."""
    size = stream.seek(0, 2)
    # Behind the end record only its comment may follow, whose length is a 16-bit number.
    stream.seek(max(0, size - _END.size - 65535))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ArchiveRefused("not_a_zip", "The file is not a zip archive, or it was cut short. Make it again.")
    _, disk, start_disk, here, entries, directory_size, directory_start, comment = _END.unpack_from(tail, at)
    end = size - len(tail) + at
    # Fields of nothing but ones say that the real value stands in a Zip64 record.
    if disk or start_disk or here != entries or 0xFFFF in (entries,) or 0xFFFFFFFF in (directory_size, directory_start):
        raise ArchiveRefused("unusual_zip", "Zip64 and split archives are not taken. Send the photos in smaller ones.")
    # A caption beside each photo, and beside each of the two a `._` file that macOS may pack; the rest is for folders.
    maximum = 4 * limits.max_images + 200
    if entries > maximum:
        message = f"The archive has {entries:,} entries; at most {limits.max_images:,} images may be sent."
        raise ArchiveRefused("too_many_entries", message)
    # zipfile reads the whole directory into memory; an entry needs 46 bytes and its name.
    if directory_size > (entries + 1) * 1024:
        raise ArchiveRefused("unusual_zip", "The archive's directory is larger than its entries need. Make it again.")
    stream.seek(0)
    first = stream.read(4)
    agrees = directory_start + directory_size == end and end + _END.size + comment == size
    if not agrees or (entries and first != b"PK\x03\x04"):
        raise ArchiveRefused("lying_zip", "The archive has bytes before, between or after its entries. Make it again.")


def _photos(opened: zipfile.ZipFile, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    """The entries that are images or describe them; junk that systems add is skipped, anything else refused by name."""
    seen: set[str] = set()
    entries: list[zipfile.ZipInfo] = []
    for entry in opened.infolist():
        _check_name(entry)
        # One name to some systems: NFC and NFD on macOS, upper and lower case there and on Windows.
        folded = unicodedata.normalize("NFC", _plain_path(entry)).casefold()
        if folded in seen:
            raise ArchiveRefused(
                "duplicate_name", f"{_shown(entry)} is in the archive twice, at least for some systems."
            )
        seen.add(folded)
        if not entry.is_dir() and not _is_junk(entry.filename):
            entries.append(entry)
    images = {_stem(entry.filename) for entry in entries if _suffix(entry) in SUFFIXES}
    for entry in entries:
        _check_kind(entry, limits, images)
    count = sum(_suffix(entry) in SUFFIXES for entry in entries)
    if count > limits.max_images:
        raise ArchiveRefused(
            "too_many_images", f"The archive has {count:,} images; the limit is {limits.max_images:,}."
        )
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise _over_budget(limits)
    return entries


def _check_name(entry: zipfile.ZipInfo) -> None:
    # Not `filename`: zipfile cuts that at a NUL and replaces separators, so the check would see another name.
    name = entry.orig_filename
    path = PurePosixPath(name)
    bad = (
        not (path.parts or name.endswith("/"))
        or len(name) > 1000
        or "\\" in name
        or path.is_absolute()
        or ".." in path.parts
        or ":" in name
        or any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in name)
    )
    if bad:
        raise ArchiveRefused("unsafe_name", f"{_shown(entry)} is not a plain relative name. Make the archive again.")
    # The upper half holds the mode where a Unix system packed it; others leave 0 there.
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveRefused("not_a_file", f"{_shown(entry)} is a link or a device. Put the photo itself in.")


def _check_kind(entry: zipfile.ZipInfo, limits: ArchiveLimits, images: Set[str]) -> None:
    suffix = _suffix(entry)
    # Bits 0, 6 and 13: encrypted, strongly encrypted, directory encrypted.
    if entry.flag_bits & 0x2041:
        raise ArchiveRefused("encrypted", f"{_shown(entry)} is encrypted. Make the archive without a password.")
    if suffix in _ARCHIVE_SUFFIXES:
        raise ArchiveRefused("nested_archive", f"{_shown(entry)} is an archive itself. Put the photos in directly.")
    if suffix in (".heic", ".heif", ".avif", ".tif", ".tiff", ".gif", ".bmp", ".svg"):
        raise ArchiveRefused("not_an_image", f"{_shown(entry)}: export {suffix[1:]} files as JPEG or PNG first.")
    describes = suffix in _DESCRIPTIONS or _stem(entry.filename) in images
    if suffix not in SUFFIXES and not describes:
        raise ArchiveRefused(
            "not_an_image",
            f"{_shown(entry)} is not a .png, .jpg, .jpeg or .webp file, nor a caption beside one. Leave it out.",
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused("unusual_zip", f"{_shown(entry)} is packed in an unusual way. Make a plain zip.")
    maximum = _maximum_bytes(suffix, limits)
    if entry.file_size > maximum:
        reason = "image_too_large" if suffix in SUFFIXES else "text_too_large"
        raise ArchiveRefused(reason, f"{_shown(entry)} has {entry.file_size:,} bytes; the limit is {maximum:,}.")


def _maximum_bytes(suffix: str, limits: ArchiveLimits) -> int:
    if suffix in SUFFIXES:
        return limits.max_image_bytes
    return _MAX_LINES_BYTES if suffix == _LINES else _MAX_TEXT_BYTES


def _check_layout(stream: BinaryIO, opened: zipfile.ZipFile) -> None:
    """Every local header agrees with the directory, and entries follow each other without sharing bytes."""
    end = 0
    for entry in sorted(opened.infolist(), key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise ArchiveRefused("lying_zip", f"{_shown(entry)} shares its bytes with another entry. Make it again.")
        stream.seek(entry.header_offset)
        head = stream.read(_LOCAL.size)
        if len(head) < _LOCAL.size:
            raise ArchiveRefused("broken", "The zip archive is damaged. Make it again.")
        mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
        name = stream.read(name_length)
        # Bit 3: sizes and CRC follow the data, and the local header has zeros in their place.
        later = bool(flags & 0x08)
        same = (
            mark == b"PK\x03\x04"
            and method == entry.compress_type
            and flags & 0x0809 == entry.flag_bits & 0x0809
            # Bit 11 says UTF-8; without it the format means code page 437.
            and name == entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
            and (later or (crc, packed, size) == (entry.CRC, entry.compress_size, entry.file_size))
        )
        if not same:
            raise ArchiveRefused("lying_zip", f"{_shown(entry)} is described in two ways. Make the archive again.")
        end = entry.header_offset + _LOCAL.size + name_length + extra_length + entry.compress_size


def _write(
    opened: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, limits: ArchiveLimits
) -> Iterator[Unpacked]:
    left = limits.max_unpacked_bytes
    for position, entry in enumerate(entries):
        target = folder / f"{position:06}"
        with opened.open(entry) as source, target.open("wb") as sink:
            written = 0
            while piece := source.read(_PIECE):
                written += len(piece)
                # Counted while it unpacks: the sizes that the checks above relied on are the archive's own claims.
                if written > left:
                    raise _over_budget(limits)
                if written > min(entry.file_size, _maximum_bytes(_suffix(entry), limits)):
                    raise ArchiveRefused("lying_zip", f"{_shown(entry)} unpacks to more than it says.")
                if written > _RATIO_COUNTS_FROM and written > _MAX_RATIO * max(1, entry.compress_size):
                    raise ArchiveRefused("bomb", f"{_shown(entry)} unpacks to {_MAX_RATIO} times its size and more.")
                sink.write(piece)
        left -= written
        yield Unpacked(_plain_path(entry), target)


def _over_budget(limits: ArchiveLimits) -> ArchiveRefused:
    message = f"The archive unpacks to more than {limits.max_unpacked_bytes:,} bytes. Send fewer or smaller photos."
    return ArchiveRefused("bomb", message)


def _plain_path(entry: zipfile.ZipInfo) -> str:
    """`a/b.png` also of `./a//b.png`: whoever goes from folder to folder would stay where he is at such a part."""
    return str(PurePosixPath(entry.filename))


def _suffix(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).suffix.lower()


def _stem(name: str) -> str:
    """A path without its suffix."""
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[0] == "__MACOSX" or path.name.casefold() in _JUNK_NAMES or path.name.startswith("._")


def _shown(entry: zipfile.ZipInfo) -> str:
    """An entry's name for a message: short, printable."""
    name = entry.orig_filename
    text = "".join(character if character.isprintable() else "?" for character in name)
    return f"'{text[:80]}...'" if len(text) > 80 else f"'{text}'"
