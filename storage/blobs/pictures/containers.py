"""What a PNG, JPEG or WebP says beside its pixels: its size, its texts and its EXIF data, without decoding a pixel.

Only chunks that are wanted are looked into, and each is unpacked up to a limit: a small file may hold a text that would
fill the memory. Personal data of other kinds (places, cameras, comments of editors) is never read.

Sources: PNG (W3C, third edition) 5.3, 11.3; JPEG (ITU T.81) B.1; WebP (RFC 9649) 2.4 to 2.7.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from storage.blobs.pictures.exif import PREFIX
from storage.errors import ImageRefused
from storage.records.generation.drawings import PictureFormat

MAX_BYTES = 64 * 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024
"""Of one text, unpacked: as Pillow's PNG reader takes."""
MAX_CHUNKS = 100_000
TEXTS = frozenset({"parameters", "prompt", "darkroom"})
"""Keys of texts that are read: A1111's, ComfyUI's graph, and ours."""

_PNG = b"\x89PNG\r\n\x1a\n"
# Markers of JPEG: frames (B.1.1.3: all of C0 to CF but tables and the reserved one), and those without a length.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class Container:
    """A picture file without its pixels. `exif` is TIFF data, empty if there is none."""

    format: PictureFormat
    width: int
    height: int
    texts: dict[str, str] = field(default_factory=dict[str, str])
    exif: bytes = b""


def read_container(content: bytes) -> Container:
    """A file's size, texts and EXIF data. Raises ImageRefused for what is no whole PNG, JPEG or WebP, or too large."""
    if len(content) > MAX_BYTES:
        message = f"has {len(content):,} bytes; at most {MAX_BYTES:,} are read. Save it as JPEG or WebP, or smaller"
        raise ImageRefused("too_large", message)
    try:
        container = _container(content)
    except (struct.error, IndexError) as error:
        raise _broken() from error
    if container.width < 1 or container.height < 1:
        raise _broken()
    return container


def _container(content: bytes) -> Container:
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp(content)
    raise ImageRefused("not_an_image", "is not a PNG, JPEG or WebP image, whatever its name says")


def _broken() -> ImageRefused:
    return ImageRefused("broken", "is damaged or cut short; export it again")


def _png(content: bytes) -> Container:
    chunks: dict[bytes, bytes] = {}
    texts: dict[str, tuple[bytes, bytes]] = {}
    for kind, start, end in _png_chunks(content):
        if kind in (b"IHDR", b"eXIf"):
            chunks.setdefault(kind, _checked(content, start, end))
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            key = content[start : min(end, start + 80)].partition(b"\0")[0].decode("latin-1")
            # Unpacked below, where there is one of each key: the last, as in Pillow.
            if key in TEXTS:
                texts[key] = kind, _checked(content, start, end)
    width, height = struct.unpack_from(">II", chunks.get(b"IHDR", b""))
    read = {key: _png_text(kind, data) for key, (kind, data) in texts.items()}
    return Container(PictureFormat.PNG, width, height, read, chunks.get(b"eXIf", b""))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, and where its data begins and ends. The first must be IHDR, and the last IEND."""
    position = len(_PNG)
    for number in range(MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", content, position)
        start = position + 8
        position = start + length + 4
        if position > len(content) or (kind == b"IHDR") is not (number == 0):
            raise _broken()
        if kind == b"IEND":
            return
        yield kind, start, start + length
    raise _too_many()


def _checked(content: bytes, start: int, end: int) -> bytes:
    """A chunk's data, if its checksum, which also counts the kind, is right."""
    if zlib.crc32(content[start - 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
        raise _broken()
    return content[start:end]


def _png_text(kind: bytes, data: bytes) -> str:
    _key, _, value = data.partition(b"\0")
    if kind == b"tEXt":
        return _within_limit(value).decode("latin-1")
    if kind == b"zTXt":
        return _unpacked(value[1:]).decode("latin-1")
    compressed, (_language, _, rest) = value[0], value[2:].partition(b"\0")
    text = rest.partition(b"\0")[2]
    return (_unpacked(text) if compressed else _within_limit(text)).decode("utf-8", "replace")


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        return _within_limit(unpacker.decompress(data, MAX_TEXT_BYTES + 1))
    except zlib.error as error:
        raise _broken() from error


def _within_limit(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        message = f"holds a text of more than {MAX_TEXT_BYTES:,} bytes; save it again without metadata"
        raise ImageRefused("too_much_text", message)
    return text


def _jpeg(content: bytes) -> Container:
    size: tuple[int, int] = 0, 0
    exif = b""
    for marker, start, end in _jpeg_segments(content):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content[start:end], 1)
            size = width, height
        elif marker == 0xE1 and not exif and content.startswith(PREFIX, start):
            exif = content[start + len(PREFIX) : end]
    return Container(PictureFormat.JPEG, *size, exif=exif)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the pixels; an image must end behind them."""
    position = 2
    for _ in range(MAX_CHUNKS):
        # Any number of FF may stand before a marker.
        if content[position] != 0xFF:
            raise _broken()
        marker = content[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        start, position = position + 4, position + 2 + length
        if length < 2 or position > len(content) or marker == 0xD9:
            raise _broken()
        yield marker, start, position
        if marker == 0xDA:
            if content.rfind(b"\xff\xd9") < position:
                raise _broken()
            return
    raise _too_many()


def _webp(content: bytes) -> Container:
    sizes: dict[bytes, tuple[int, int]] = {}
    exif = b""
    for kind, start, end in _riff_chunks(content):
        if kind in (b"VP8X", b"VP8L", b"VP8 "):
            sizes.setdefault(kind, _webp_size(kind, content[start : min(end, start + 10)]))
        elif kind == b"EXIF" and not exif:
            exif = content[start:end].removeprefix(PREFIX)
    # The canvas, where there is one, counts before what is painted on it.
    for kind in (b"VP8X", b"VP8L", b"VP8 "):
        if kind in sizes:
            return Container(PictureFormat.WEBP, *sizes[kind], exif=exif)
    raise _broken()


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    (length,) = struct.unpack_from("<I", content, 4)
    whole, position = 8 + length, 12
    if whole > len(content):
        raise _broken()
    for _ in range(MAX_CHUNKS):
        if position >= whole:
            return
        kind, size = struct.unpack_from("<4sI", content, position)
        start, end = position + 8, position + 8 + size
        if end > whole:
            raise _broken()
        yield kind, start, end
        # Chunks begin at even places.
        position = end + size % 2
    raise _too_many()


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", head)
        if signature != 0x2F:
            raise _broken()
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 6)
    return width & 0x3FFF, height & 0x3FFF


def _too_many() -> ImageRefused:
    return ImageRefused("too_many_chunks", f"has more than {MAX_CHUNKS:,} parts; export it again")
