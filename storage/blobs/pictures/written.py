"""A drawn picture as a file that says how it was drawn, where tools of the field look for it.

    what                 PNG                JPEG and WebP
    A1111's parameters   text `parameters`  EXIF UserComment, UTF-16
    ComfyUI's graph      text `prompt`      EXIF Model, "prompt:{...}"
    our own request      text `darkroom`    EXIF Make, "darkroom:{...}"

Equal pictures and texts make equal bytes: no time, no path and nothing of the image's own metadata gets in.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, PngImagePlugin

from storage.blobs.pictures.exif import MAKE, MODEL, written_exif
from storage.errors import InvalidRequest
from storage.records.generation.drawings import PictureFormat

DEFAULT_QUALITY = 90
"""Of JPEG and WebP, 1 to 100: hardly to be told from the PNG, at a fifth of its bytes."""
WEBP_SIDE = 16_383
"""Pixels that a side of a WebP can have (RFC 9649, 2.6)."""
JPEG_SIDE = 65_500
"""Pixels that libjpeg takes a side."""
JPEG_METADATA = 65_533
"""Bytes of one segment of a JPEG (ITU T.81, B.1.1.4), which holds all EXIF data."""


def write_picture(
    image: Image.Image,
    form: PictureFormat,
    parameters: str,
    graph: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    *,
    quality: int = DEFAULT_QUALITY,
) -> bytes:
    """The bytes of a picture. What is empty is left out: a PNG without any of it is a plain one.

    A JPEG has room for 64 KiB of texts. Where they do not fit, the graph is left out, then our request; parameters
    that alone are too long are refused. Raises InvalidRequest by field.
    """
    plain = image.copy()
    # Pillow's writers take profiles and comments from there.
    plain.info = {}
    try:
        match form:
            case PictureFormat.PNG:
                return _png(plain, parameters, graph, facts)
            case PictureFormat.JPEG | PictureFormat.WEBP:
                return _with_exif(plain, form, parameters, graph, facts, quality)
    except UnicodeEncodeError as error:
        raise InvalidRequest({"prompt": "holds half of a surrogate pair, which is no character; remove it"}) from error


def _png(image: Image.Image, parameters: str, graph: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for key, text in (("parameters", parameters), ("prompt", _json(graph)), ("darkroom", _json(facts))):
        if text:
            # As Latin-1 where that can write it, else as UTF-8.
            texts.add_text(key, text)
    return _saved(image, "PNG", pnginfo=texts)


def _with_exif(
    image: Image.Image,
    form: PictureFormat,
    parameters: str,
    graph: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    quality: int,
) -> bytes:
    side = JPEG_SIDE if form is PictureFormat.JPEG else WEBP_SIDE
    if max(image.size) > side:
        raise InvalidRequest({"format": f"{form.value} holds at most {side:,} pixels a side; ask for png"})
    if not 1 <= quality <= 100:
        raise InvalidRequest({"quality": f"{quality} is not from 1 to 100"})
    exif = next(_exifs(parameters, graph, facts))
    if form is PictureFormat.WEBP:
        return _saved(image.convert("RGB"), "WEBP", quality=quality, method=4, exif=exif)
    exif = next((one for one in _exifs(parameters, graph, facts) if len(one) <= JPEG_METADATA), None)
    if exif is None:
        message = f"jpeg has room for {JPEG_METADATA:,} bytes of metadata, and the prompt has more; ask for png or webp"
        raise InvalidRequest({"format": message})
    # Colours at full resolution: at half of it the edges of saturated areas bleed.
    return _saved(image.convert("RGB"), "JPEG", quality=quality, subsampling="4:4:4", optimize=True, exif=exif)


def _exifs(parameters: str, graph: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> Iterator[bytes]:
    """EXIF data with everything, then with less and less; empty for none."""
    texts = {MAKE: f"darkroom:{_json(facts)}" if facts else "", MODEL: f"prompt:{_json(graph)}" if graph else ""}
    for tags in ((MAKE, MODEL), (MAKE,), ()):
        yield written_exif({tag: texts[tag] for tag in tags if texts[tag]}, parameters)


def _json(value: Mapping[str, Any] | None) -> str:
    """Canonical JSON in ASCII, as ComfyUI writes it; empty for none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) if value else ""


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **{name: value for name, value in options.items() if value != b""})
    return buffer.getvalue()
