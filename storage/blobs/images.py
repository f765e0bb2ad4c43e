"""Images from strangers become canonical RGB PNGs: what a child of `ImageWorkers` does, and its main program.

Canonical: the first frame, turned as its EXIF says, in sRGB, on white where it was transparent, without any metadata,
written by one encoder with fixed settings. Making a canonical image canonical again produces the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from storage.blobs.blurhashes import blurhash_of
from storage.blobs.image_workers import CanonicalImage
from storage.errors import ImageRefused

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 16
MAX_RATIO = 16


def canonicalise(source: Path, target: Path, max_pixels: int) -> CanonicalImage:
    """Write the canonical PNG of `source` to `target`. Raises ImageRefused with a stable reason."""
    with source.open("rb") as stream, warnings.catch_warnings():
        # Pillow only warns of an image that is far too large or half broken, and would go on.
        warnings.simplefilter("error")
        # Metadata that we drop anyway: phones write it wrongly now and then, and the picture is whole.
        warnings.filterwarnings("ignore", message="Image appears to be a malformed MPO")
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")
        try:
            _check_webp_header(stream, max_pixels)
            with Image.open(stream, formats=FORMATS) as image:
                _check_header(image, max_pixels)
                canonical = _canonical(image)
        except UnidentifiedImageError as error:
            raise ImageRefused("not_an_image", "is not a PNG, JPEG or WebP image, whatever its name says") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            message = f"has far more than {max_pixels:,} pixels, which is the limit. Export it smaller"
            raise ImageRefused("too_many_pixels", message) from error
        except MemoryError as error:
            raise ImageRefused("too_much_memory", "needs too much memory to open; export it smaller") from error
        except (OSError, SyntaxError, ValueError, struct.error, EOFError, Warning) as error:
            raise ImageRefused("broken", "is damaged or cut short; export it again") from error
    # A fixed level, and a fast one: the name of a blob is the hash of these bytes.
    canonical.save(target, format="PNG", compress_level=1)
    return CanonicalImage(canonical.width, canonical.height, target.stat().st_size, blurhash_of(canonical))


def _check_header(image: Image.Image, max_pixels: int) -> None:
    _check_size(image.width, image.height, max_pixels)
    # Not JPEG: phones write several frames into one (MPO), and the first is the photo.
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise _animated(str(image.format))


def _animated(kind: str) -> ImageRefused:
    name = {"PNG": "PNG", "WEBP": "WebP"}[kind]
    return ImageRefused("animated", f"is an animated {name}; export one frame as PNG or JPEG")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRefused(
            "too_many_pixels",
            f"has {width:,} x {height:,} = {width * height:,} pixels; the limit is {max_pixels:,}. Export it smaller",
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_RATIO * min(width, height):
        raise ImageRefused(
            "unusable_shape",
            f"is {width:,} x {height:,} pixels; both sides need at least {MIN_SIDE}, and the longer one may be "
            f"{MAX_RATIO} times the shorter at most",
        )


def _check_webp_header(stream: BinaryIO, max_pixels: int) -> None:
    """Pillow's WebP reader allocates the whole canvas when it opens a file, so the size is read before."""
    head = stream.read(32)
    stream.seek(0)
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    # The three forms of RFC 9649 (2.5 to 2.7): VP8X has 24 bits a side and a flag for animations (bit 1), VP8L 14 bits,
    # VP8 14 bits with two more for scaling.
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        if head[20] & 0x02:
            raise _animated("WEBP")
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_size(width, height, max_pixels)


def _canonical(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    image.seek(0)
    image.load()
    turned = ImageOps.exif_transpose(image)
    # Before the profile is applied: it describes the colours, and alpha has to be gone by then.
    opaque = _as_rgb(turned)
    # A profile of a grey or CMYK image does not fit pixels that are RGB by now.
    if isinstance(profile, bytes) and turned.mode in ("RGB", "RGBA", "P"):
        opaque = _as_srgb(opaque, profile)
    # A new image has no `info`, from which Pillow's PNG writer takes an ICC profile and transparency.
    plain = Image.new("RGB", opaque.size)
    plain.paste(opaque)
    return plain


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel: scaled, since a plain conversion clips everything above 255 to white.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _as_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours as meant: most phones write Display P3. A profile that does not load is dropped like other metadata."""
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ours = cast(Any, ImageCms).createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, theirs, ours, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image


def serve(requests: BinaryIO, responses: BinaryIO, memory_limit_bytes: int) -> None:
    """What a child does: one JSON line in, one out, until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    # A core dump would hold somebody's photo.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    for line in requests:
        asked = json.loads(line)
        try:
            done = canonicalise(Path(asked["source"]), Path(asked["target"]), asked["max_pixels"])
            response = asdict(done)
        except ImageRefused as refusal:
            response = {"reason": refusal.reason, "message": str(refusal)}
        except OSError as error:
            response = {"errno": error.errno}
        responses.write(json.dumps(response).encode() + b"\n")
        responses.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
