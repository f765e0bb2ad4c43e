"""Images from strangers: canonical and harmless, or refused with a reason."""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from storage.blobs.image_workers import ImageWorkers
from storage.blobs.images import canonicalise
from storage.errors import ImageRefused, StoreUnavailable

MAX_PIXELS = 24_000_000


def noise(size: tuple[int, int], seed: int = 1, mode: str = "RGB") -> Image.Image:
    """An image of random pixels."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(seed).randbytes(size[0] * size[1] * bands))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int, rest: bytes = b"") -> bytes:
    """A PNG that says it has this size, and next to nothing behind it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP header with this canvas."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + b"\0" * 20
    return b"RIFF" + struct.pack("<I", len(body)) + body


def frames(kind: str) -> bytes:
    """An animation of two frames."""
    return encoded(noise((32, 32), 1), kind, save_all=True, append_images=[noise((32, 32), 2)], duration=100)


def truncated_bomb() -> bytes:
    """A text chunk that unpacks to 200 MB."""
    content = b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000, 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return png_header(32, 32, chunk)


REFUSED = {
    "20,000 x 20,000 PNG": (png_header(20_000, 20_000), "too_many_pixels"),
    "2^31 wide PNG": (png_header(2**31 - 1, 1), "too_many_pixels"),
    "zero size PNG": (png_header(0, 5), None),
    "16,000 x 16,000 WebP": (webp_canvas(16_000, 16_000), "too_many_pixels"),
    "largest WebP canvas": (webp_canvas(2**24, 2**24), "too_many_pixels"),
    "a sliver": (encoded(noise((4000, 20)), "PNG"), "unusable_shape"),
    "a dot": (encoded(noise((1, 1)), "PNG"), "unusable_shape"),
    "animated WebP": (frames("WEBP"), "animated"),
    "animated PNG": (frames("PNG"), "animated"),
    "text named .jpg": (b"I am not a picture.\n" * 50, "not_an_image"),
    "nothing": (b"", "not_an_image"),
    "GIF": (encoded(noise((32, 32)).convert("P"), "GIF"), "not_an_image"),
    "TIFF": (encoded(noise((32, 32)), "TIFF"), "not_an_image"),
    "BMP": (encoded(noise((32, 32)), "BMP"), "not_an_image"),
    "FITS": (b"SIMPLE  =                    T" + b" " * 2850, "not_an_image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not_an_image"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    "PDF": (b"%PDF-1.7\n", "not_an_image"),
    "half a PNG": (encoded(noise((64, 64)), "PNG")[:4000], "broken"),
    "half a JPEG": (encoded(noise((64, 64)), "JPEG")[:1000], "broken"),
    "half a WebP": (encoded(noise((64, 64)), "WEBP", lossless=True)[:1000], None),
    "PNG text bomb": (truncated_bomb(), "broken"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_and_broken_files_are_refused_quickly(name: str, tmp_path: Path):
    content, reason = REFUSED[name]
    (tmp_path / "in").write_bytes(content)
    tries: list[float] = []
    # The best of three: a busy machine, or a collection of garbage, takes as long of one.
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(ImageRefused):
            canonicalise(tmp_path / "in", tmp_path / "out", MAX_PIXELS)
        tries.append(time.process_time() - began)
    with pytest.raises(ImageRefused) as refusal:
        canonicalise(tmp_path / "in", tmp_path / "out", MAX_PIXELS)
    assert min(tries) < 0.3
    assert reason in (None, refusal.value.reason)
    assert not (tmp_path / "out").exists()


def test_an_animation_is_refused_with_what_to_do(tmp_path: Path):
    (tmp_path / "in").write_bytes(frames("WEBP"))
    with pytest.raises(ImageRefused, match="is an animated WebP; export one frame as PNG or JPEG"):
        canonicalise(tmp_path / "in", tmp_path / "out", MAX_PIXELS)


def canonical(content: bytes, folder: Path) -> tuple[bytes, Image.Image]:
    """The canonical file of an image file, and what it shows."""
    (folder / "in").write_bytes(content)
    measured = canonicalise(folder / "in", folder / "out", MAX_PIXELS)
    result = (folder / "out").read_bytes()
    image = Image.open(io.BytesIO(result))
    assert (measured.width, measured.height, measured.size) == (*image.size, len(result))
    return result, image


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "I;16"]),
    width=st.integers(16, 60),
    height=st.integers(16, 60),
    turned=st.integers(1, 8),
)
def test_accepted_images_are_plain_and_accepting_them_again_changes_nothing(
    kind: str, mode: str, width: int, height: int, turned: int, tmp_path: Path
):
    if mode not in {"PNG": {"RGB", "L", "RGBA", "P", "1", "LA", "I;16"}, "JPEG": {"RGB", "L", "CMYK"}}.get(
        kind, {"RGB", "RGBA", "L"}
    ):
        return
    source = noise((width, height), width) if mode in ("P", "1", "I;16") else noise((width, height), width, mode)
    if mode in ("P", "1"):
        source = source.convert(mode)
    if mode == "I;16":
        source = Image.frombytes("I;16", (width, height), random.Random(1).randbytes(width * height * 2))
    exif = Image.Exif()
    exif[0x0112] = turned
    exif[0x010E] = "where I live"
    result, image = canonical(encoded(source, kind, exif=exif), tmp_path)
    assert (image.mode, image.format) == ("RGB", "PNG")
    assert image.size == ((height, width) if turned >= 5 else (width, height))
    assert not image.info
    assert not image.getexif()
    assert b"where I live" not in result
    assert canonical(result, tmp_path)[0] == result


def test_a_photo_is_turned_upright(tmp_path: Path):
    upright = Image.new("RGB", (40, 20), "red")
    upright.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 3
    _, image = canonical(encoded(upright.rotate(180), "PNG", exif=exif), tmp_path)
    assert (image.getpixel((5, 10)), image.getpixel((35, 10))) == ((0, 0, 255), (255, 0, 0))


def test_what_is_transparent_becomes_white(tmp_path: Path):
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert canonical(encoded(clear, "PNG"), tmp_path)[1].getpixel((3, 3)) == (255, 255, 255)


def test_what_a_palette_makes_transparent_becomes_white(tmp_path: Path):
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([255, 0, 0, 0, 128, 0])
    picture.paste(0, (0, 0, 10, 20))
    _, image = canonical(encoded(picture, "PNG", transparency=1), tmp_path)
    assert (image.getpixel((3, 3)), image.getpixel((15, 3))) == ((255, 0, 0), (255, 255, 255))


def test_the_inks_of_a_jpeg_become_the_colours_they_print(tmp_path: Path):
    _, image = canonical(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"), tmp_path)
    red, green, blue = Image.Image.getpixel(image, (9, 9))  # pyright: ignore[reportGeneralTypeIssues]
    assert red > 200
    assert green < 60
    assert blue < 60


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    grey = Image.new("I;16", (20, 20), 32768)
    value = canonical(encoded(grey, "PNG"), tmp_path)[1].getpixel((3, 3))
    assert value in ((127, 127, 127), (128, 128, 128))


def test_text_and_trailing_bytes_are_dropped(tmp_path: Path):
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "<script>")
    result, _ = canonical(encoded(noise((20, 20)), "PNG", pnginfo=note) + b"PK\x03\x04 and more", tmp_path)
    assert b"script" not in result
    assert b"and more" not in result


@pytest.fixture
def workers() -> Iterator[ImageWorkers]:
    """One child."""
    pool = ImageWorkers(MAX_PIXELS, count=1)
    yield pool
    pool.close()


def test_a_child_is_kept_for_many_images_and_refuses_by_name(workers: ImageWorkers, tmp_path: Path):
    (tmp_path / "good").write_bytes(encoded(noise((40, 30)), "JPEG"))
    (tmp_path / "bad").write_bytes(b"text")
    first = workers.canonicalise(tmp_path / "good", tmp_path / "1.png")
    with pytest.raises(ImageRefused, match="is not a PNG, JPEG or WebP image"):
        workers.canonicalise(tmp_path / "bad", tmp_path / "2.png")
    assert workers.canonicalise(tmp_path / "good", tmp_path / "3.png") == first
    assert workers.started == 1
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "3.png").read_bytes()


def test_a_child_that_is_killed_costs_one_image_and_is_replaced(workers: ImageWorkers, tmp_path: Path):
    (tmp_path / "good").write_bytes(encoded(noise((40, 30)), "JPEG"))
    workers.canonicalise(tmp_path / "good", tmp_path / "1.png")
    workers.kill_children()
    with pytest.raises(ImageRefused, match="takes too much memory or time"):
        workers.canonicalise(tmp_path / "good", tmp_path / "2.png")
    workers.canonicalise(tmp_path / "good", tmp_path / "3.png")
    assert workers.started == 2


def test_a_closed_pool_leaves_nothing_open_and_takes_no_image(tmp_path: Path):
    (tmp_path / "good").write_bytes(encoded(noise((40, 30)), "JPEG"))
    pool = ImageWorkers(MAX_PIXELS, count=2)
    pool.canonicalise(tmp_path / "good", tmp_path / "1.png")
    pipes = [pipe for child in pool._children for pipe in (child._process.stdin, child._process.stdout)]
    pool.close()
    assert pipes
    assert all(pipe is not None and pipe.closed for pipe in pipes)
    with pytest.raises(StoreUnavailable, match="The server stops"):
        pool.canonicalise(tmp_path / "good", tmp_path / "2.png")


def test_an_image_that_needs_more_memory_than_a_child_has_is_refused(tmp_path: Path):
    (tmp_path / "big").write_bytes(encoded(Image.new("RGB", (4800, 4800)), "PNG"))
    pool = ImageWorkers(MAX_PIXELS, count=1, memory_limit_bytes=200 * 1024 * 1024)
    try:
        with pytest.raises(ImageRefused) as refusal:
            pool.canonicalise(tmp_path / "big", tmp_path / "out")
        assert refusal.value.reason in ("too_much_memory", "too_much_work")
        (tmp_path / "small").write_bytes(encoded(noise((40, 30)), "PNG"))
        pool.canonicalise(tmp_path / "small", tmp_path / "out")
    finally:
        pool.close()


def test_images_are_taken_also_with_more_than_a_thousand_open_files(workers: ImageWorkers, tmp_path: Path):
    """select.select knows no descriptor above 1023, and a server with many clients has more."""
    (tmp_path / "good").write_bytes(encoded(noise((40, 30)), "JPEG"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"this machine allows {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        assert workers.canonicalise(tmp_path / "good", tmp_path / "1.png").width == 40
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
