"""Files are read to their end and no further: what is cut, lies or swells is refused by name."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from storage.blobs.pictures.containers import MAX_BYTES, MAX_CHUNKS, MAX_TEXT_BYTES, read_container
from storage.blobs.pictures.written import write_picture
from storage.errors import ImageRefused
from storage.records.generation.drawings import PictureFormat

PARAMETERS = "a mug\nSteps: 25, Sampler: DDIM, Seed: 1"
WHOLE = {
    form: write_picture(Image.new("RGB", (40, 24), "teal"), form, PARAMETERS, None, {"a": 1}) for form in PictureFormat
}
EVERY = pytest.mark.parametrize("form", PictureFormat)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG's chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, size: tuple[int, int] = (40, 24)) -> bytes:
    """A PNG of these chunks after its header, without pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def jpeg(*segments: bytes) -> bytes:
    """A JPEG of these segments, without pixels."""
    return b"\xff\xd8" + b"".join(segments) + segment(0xDA, b"") + b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    """A JPEG's segment."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def webp(*chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


FRAME = segment(0xC2, struct.pack(">BHHB", 8, 24, 40, 3))


def refused(content: bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(ImageRefused) as caught:
        read_container(content)
    return caught.value.reason


@EVERY
def test_size_and_format_are_those_of_pillow(form: PictureFormat) -> None:
    container = read_container(WHOLE[form])

    with Image.open(io.BytesIO(WHOLE[form])) as image:
        assert (container.width, container.height) == image.size
        assert container.format == str(image.format).lower()


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"save_all": True}])
def test_every_kind_of_webp_has_a_size(options: dict[str, bool]) -> None:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (300, 17), colour) for colour in ("red", "blue")]
    frames[0].save(stream, "WEBP", append_images=frames[1:] if "save_all" in options else [], **options)

    container = read_container(stream.getvalue())

    assert (container.width, container.height) == (300, 17)


@pytest.mark.parametrize("progressive", [True, False])
def test_every_kind_of_jpeg_has_a_size(progressive: bool) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (300, 17)).save(stream, "JPEG", progressive=progressive, comment=b"fill\xff\xd9", icc_profile=b"x")

    assert (read_container(stream.getvalue()).width, read_container(stream.getvalue()).height) == (300, 17)


@EVERY
def test_a_file_that_is_cut_anywhere_is_refused(form: PictureFormat) -> None:
    reasons = {refused(WHOLE[form][:length]) for length in range(len(WHOLE[form]))}

    assert reasons <= {"broken", "not_an_image"}


@EVERY
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_file_is_read_or_refused(form: PictureFormat, data: st.DataObject) -> None:
    content = bytearray(WHOLE[form])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    # Whatever else is raised fails the test.
    with contextlib.suppress(ImageRefused):
        read_container(bytes(content))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"tEXt", b"parameters\0caf\xe9"),
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"caf\xe9")),
        (b"iTXt", b"parameters\0\0\0en\0Parameter\0" + "café".encode()),
        (b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress("café".encode())),
    ],
)
@pytest.mark.parametrize("behind", [True, False])
def test_every_kind_of_png_text_is_read_before_and_behind_the_pixels(kind: bytes, data: bytes, behind: bool) -> None:
    parts = [chunk(kind, data), chunk(b"IDAT", zlib.compress(b"\0" * 3000))]

    assert read_container(png(*(reversed(parts) if behind else parts))).texts == {"parameters": "café"}


def test_the_last_text_of_a_key_counts_as_in_pillow() -> None:
    content = png(chunk(b"tEXt", b"parameters\0one"), chunk(b"tEXt", b"parameters\0two"), chunk(b"tEXt", b"Author\0me"))

    assert read_container(content).texts == {"parameters": "two"}


@pytest.mark.parametrize(("kind", "head"), [(b"zTXt", b"parameters\0\0"), (b"iTXt", b"darkroom\0\1\0\0\0")])
def test_a_text_that_swells_is_refused_before_it_fills_the_memory(kind: bytes, head: bytes) -> None:
    content = png(chunk(kind, head + zlib.compress(b"\0" * 50_000_000, 9)))
    tracemalloc.start()

    reason = refused(content)

    assert (reason, tracemalloc.get_traced_memory()[1] < 4 * MAX_TEXT_BYTES) == ("too_much_text", True)
    tracemalloc.stop()


def test_many_texts_that_swell_are_unpacked_once_or_never() -> None:
    bomb = zlib.compress(b"\0" * MAX_TEXT_BYTES, 9)
    content = png(*[chunk(b"zTXt", b"parameters\0\0" + bomb)] * 3_000, *[chunk(b"zTXt", b"Comment\0\0" + bomb)] * 3_000)
    started = time.process_time()

    assert len(read_container(content).texts["parameters"]) == MAX_TEXT_BYTES
    # Unpacking each would take 3 s and more.
    assert time.process_time() - started < 1


def test_a_text_as_large_as_one_may_be_is_what_pillow_takes() -> None:
    assert MAX_TEXT_BYTES == PngImagePlugin.MAX_TEXT_CHUNK


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_an_image"),
        (b"GIF89a" + b"\0" * 40, "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
        (png(size=(0, 24)), "broken"),
        (png(chunk(b"IHDR", b"\0" * 13)), "broken"),
        (png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"\0" * 50, "broken"),
        (png()[:33] + struct.pack(">I", 2**32 - 12) + b"IDAT" + b"\0" * 50, "broken"),
        (png(chunk(b"tEXt", b"prompt\0x")[:-1] + b"!"), "broken"),
        (png(chunk(b"zTXt", b"prompt\0\0nothing packed")), "broken"),
        (png(chunk(b"iTXt", b"prompt\0")), "broken"),
        (png(chunk(b"tEXt", b"prompt\0" + b"x" * (MAX_TEXT_BYTES + 1))), "too_much_text"),
        (jpeg(), "broken"),
        (jpeg(FRAME)[:-2], "broken"),
        (jpeg(b"\xff\xfe\0\1"), "broken"),
        (jpeg(b"\xff\xfe\xff\xff", FRAME), "broken"),
        (jpeg(b"\xff" * 50 + b"\xfe\0\2"), "broken"),
        (jpeg(segment(0xC0, b"\x08\0")), "broken"),
        (jpeg(b"\xff\xd9"), "broken"),
        (b"\xff\xd8\xff" * 20, "broken"),
        (webp(), "broken"),
        (webp(b"VP8L\x05\0\0\0\x2e\0\0\0\0\0"), "broken"),
        (webp(b"VP8X\xff\xff\xff\xffshort"), "broken"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8X", "broken"),
        (webp(b"VP8 \x04\0\0\0abcd"), "broken"),
    ],
    ids=range(24),
)
def test_a_file_that_lies_is_refused(content: bytes, reason: str) -> None:
    assert refused(content) == reason


def test_bytes_behind_a_picture_are_passed_over() -> None:
    for form, content in WHOLE.items():
        assert read_container(content + b"\0" * 100).format is form


def test_a_file_that_is_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(ImageRefused, match=r"has 104,857,600 bytes; at most 67,108,864 are read") as caught:
        read_container(bytes(100 * 1024 * 1024))

    assert (caught.value.reason, MAX_BYTES) == ("too_large", 67_108_864)


@EVERY
def test_a_file_of_too_many_parts_is_refused(form: PictureFormat) -> None:
    parts = MAX_CHUNKS + 1
    content = {
        PictureFormat.PNG: lambda: png(*[chunk(b"tEXt", b"")] * parts),
        PictureFormat.JPEG: lambda: jpeg(*[segment(0xE2, b"")] * parts),
        PictureFormat.WEBP: lambda: webp(*[b"XXXX\0\0\0\0"] * parts),
    }[form]()

    assert refused(content) == "too_many_chunks"
