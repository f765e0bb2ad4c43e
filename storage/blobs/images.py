"""Images from strangers become canonical RGB PNGs, in child processes with a memory limit.

`canonicalise` is what a child does to one file; `ImageWorkers` is the parent's pool of children. A child is a fresh
Python process (never a fork of a server with threads), reads one request a line and answers one line. One that dies or
takes too long is replaced, and its image is refused.

Canonical: the first frame, turned as its EXIF says, in sRGB, on white where it was transparent, without any metadata,
written by one encoder with fixed settings. Making a canonical image canonical again produces the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import queue
import resource
import select
import struct
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from storage.blobs.blurhashes import blurhash_of
from storage.blobs.failures import STAGING, store_error
from storage.errors import ImageRefused, StoreUnavailable

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 16
MAX_RATIO = 16
MEMORY_LIMIT_BYTES = 1536 * 1024 * 1024
SECONDS_EACH = 30.0
_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class CanonicalImage:
    """What a canonical PNG measures, in pixels and bytes, and its place-holder."""

    width: int
    height: int
    size: int
    blurhash: str


def canonicalise(source: Path, target: Path, max_pixels: int) -> CanonicalImage:
    """Write the canonical PNG of `source` to `target`. Raises ImageRefused with a stable reason."""
    with source.open("rb") as stream, warnings.catch_warnings():
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
    canonical.save(target, format="PNG", compress_level=1)
    return CanonicalImage(canonical.width, canonical.height, target.stat().st_size, blurhash_of(canonical))


def _check_header(image: Image.Image, max_pixels: int) -> None:
    _check_size(image.width, image.height, max_pixels)
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
    opaque = _as_rgb(turned)
    if isinstance(profile, bytes) and turned.mode in ("RGB", "RGBA", "P"):
        opaque = _as_srgb(opaque, profile)
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


class ImageWorkers:
    """A small pool of children that make images canonical. Safe to call from several threads; closes its children."""

    def __init__(self, max_pixels: int, *, count: int = 2, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._max_pixels, self._memory = max_pixels, memory_limit_bytes
        self.count, self.started = count, 0
        self._children: set[_Child] = set()
        self._closed = False
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def canonicalise(self, source: Path, target: Path) -> CanonicalImage:
        """`canonicalise` in a child; waits for a free one. Raises ImageRefused, DiskFull, StoreUnavailable."""
        child = self._idle.get()
        try:
            if child is None or not child.alive:
                child = self._new_child()
            return child.ask(source, target, self._max_pixels)
        finally:
            self._idle.put(child if child is not None and child.alive else None)

    def _new_child(self) -> _Child:
        if self._closed:
            raise StoreUnavailable("The server stops. Send the image again in a few seconds.")
        self._children = {child for child in self._children if child.alive}
        child = _Child(self._memory)
        self._children.add(child)
        self.started += 1
        return child

    def kill_children(self) -> None:
        """Kill the idle children as the system would when memory runs out; they are replaced when next needed."""
        for child in list(self._idle.queue):
            if child is not None:
                child.kill()

    def close(self) -> None:
        """Kill the children, also those at work: whoever waits for an image is gone by now."""
        self._closed = True
        for child in self._children:
            child.kill()


class _Child:
    """One long-lived child process, at a lower priority than the server."""

    def __init__(self, memory_limit_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "storage.blobs.images", str(memory_limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_PROJECT,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"},
            start_new_session=True,
            bufsize=0,
        )
        self.alive = True

    def ask(self, source: Path, target: Path, max_pixels: int) -> CanonicalImage:
        """One image; a child that dies or is too slow costs that image its place."""
        request = json.dumps({"source": str(source), "target": str(target), "max_pixels": max_pixels})
        answer = self._exchange(request.encode() + b"\n")
        if answer is None:
            self.stop()
            raise ImageRefused("too_much_work", "takes too much memory or time to open; export it smaller")
        facts = cast(dict[str, Any], json.loads(answer))
        if "reason" in facts:
            raise ImageRefused(facts["reason"], facts["message"])
        if "errno" in facts:
            number = facts["errno"] or 0
            raise store_error(OSError(number, os.strerror(number)), STAGING)
        return CanonicalImage(**facts)

    def _exchange(self, request: bytes) -> bytes | None:
        stdin, stdout = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        try:
            stdin.write(request)
            stdin.flush()
        except BrokenPipeError:
            return None
        answer = stdout.readline() if _is_ready(stdout, SECONDS_EACH) else b""
        return answer if answer.endswith(b"\n") else None

    def kill(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Kill the process and close what led to it."""
        self.alive = False
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _is_ready(stream: BinaryIO, seconds: float) -> bool:
    """Whether something can be read within a time. By poll: select knows no descriptor above 1023."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def serve(requests: BinaryIO, answers: BinaryIO, memory_limit_bytes: int) -> None:
    """What a child does: one JSON line in, one out, until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    for line in requests:
        asked = json.loads(line)
        try:
            done = canonicalise(Path(asked["source"]), Path(asked["target"]), asked["max_pixels"])
            answer = asdict(done)
        except ImageRefused as refusal:
            answer = {"reason": refusal.reason, "message": str(refusal)}
        except OSError as error:
            answer = {"errno": error.errno}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
