"""The few EXIF fields in which pictures keep how they were drawn: the user's comment, and texts of the camera's fields.

A1111 writes its `parameters` into UserComment; ComfyUI's savers of WebP write `prompt:{...}` into Model. No other field
is looked at, so that no place, name or camera leaves this module.

Sources: CIPA DC-008 (EXIF 3.0) 4.6.2, 4.6.5; comfyanonymous/ComfyUI, comfy_extras/nodes_images.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from storage.errors import ImageRefused

DESCRIPTION, MAKE, MODEL, EXIF_IFD, USER_COMMENT = 0x010E, 0x010F, 0x0110, 0x8769, 0x9286
PREFIX = b"Exif\0\0"
MAX_FIELDS = 1_000
MAX_FIELD_BYTES = 2 * 1024 * 1024
"""Of one text; the comment has two bytes a character."""
_UNICODE, _ASCII, _UNDEFINED = b"UNICODE\0", b"ASCII\0\0\0", b"\0" * 8
# The types that hold text: BYTE, ASCII, UNDEFINED and UTF-8, all of one byte each; LONG holds the place of a folder.
_ASCII_TYPE, _UNDEFINED_TYPE, _LONG = 2, 7, 4
_BYTES = frozenset({1, _ASCII_TYPE, _UNDEFINED_TYPE, 129})


def read_fields(data: bytes) -> dict[int, bytes]:
    """The bytes of the fields above that TIFF data has.

    Raises ImageRefused for data that leads outside of itself, and for a text that is too long.
    """
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        fields = dict(_fields(data, order, first))
        if EXIF_IFD in fields:
            fields |= dict(_fields(data, order, *struct.unpack(f"{order}I", fields.pop(EXIF_IFD))))
    except (KeyError, struct.error) as error:
        message = "has EXIF data that is damaged; save it again with the program that drew it, or without metadata"
        raise ImageRefused("broken_metadata", message) from error
    return fields


def _fields(data: bytes, order: str, start: int) -> Iterator[tuple[int, bytes]]:
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for number in range(min(count, MAX_FIELDS)):
        place = start + 2 + 12 * number
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, place)
        if tag == EXIF_IFD and kind == _LONG:
            yield tag, data[place + 8 : place + 12]
        elif tag in (DESCRIPTION, MAKE, MODEL, USER_COMMENT) and kind in _BYTES:
            if length > MAX_FIELD_BYTES:
                message = f"holds a text of more than {MAX_FIELD_BYTES:,} bytes; save it again without metadata"
                raise ImageRefused("too_much_text", message)
            # Up to four bytes stand in the field itself.
            at = place + 8 if length <= 4 else struct.unpack_from(f"{order}I", data, place + 8)[0]
            if at + length > len(data):
                raise struct.error("a value outside of the data")
            yield tag, data[at : at + length]


def written_exif(texts: dict[int, str], comment: str) -> bytes:
    """EXIF data of these ASCII texts by tag and this comment, with its prefix; empty for neither.

    The comment is as A1111 writes it: UTF-16, the high byte first, without a mark of its order, of the type UNDEFINED.
    Pillow would write it as BYTE, which A1111's reader (piexif) does not take.
    """
    if not texts and not comment:
        return b""
    fields = [(tag, _ASCII_TYPE, text.encode("ascii") + b"\0") for tag, text in sorted(texts.items())]
    if not comment:
        return PREFIX + b"MM\0*" + struct.pack(">I", 8) + _folder(fields, 8)
    # The folder of the comment stands behind the first one, whose length does not depend on where that is.
    start = 8 + len(_folder([*fields, (EXIF_IFD, _LONG, struct.pack(">I", 0))], 8))
    first = _folder([*fields, (EXIF_IFD, _LONG, struct.pack(">I", start))], 8)
    value = _UNICODE + comment.encode("utf-16-be")
    return PREFIX + b"MM\0*" + struct.pack(">I", 8) + first + _folder([(USER_COMMENT, _UNDEFINED_TYPE, value)], start)


def _folder(fields: list[tuple[int, int, bytes]], start: int) -> bytes:
    """A folder of tag, type and value, which begins at `start` of the data; long values follow it."""
    entries, values = struct.pack(">H", len(fields)), b""
    behind = start + 2 + 12 * len(fields) + 4
    for tag, kind, value in fields:
        count = 1 if kind == _LONG else len(value)
        if len(value) <= 4:
            entries += struct.pack(">HHI4s", tag, kind, count, value)
        else:
            entries += struct.pack(">HHII", tag, kind, count, behind + len(values))
            # Values begin at even places.
            values += value + b"\0" * (len(value) % 2)
    return entries + struct.pack(">I", 0) + values


def read_comment(value: bytes) -> str:
    """The text of a UserComment; empty in a character code that no tool writes.

    EXIF leaves the order of the bytes to that of the TIFF data, and tools do as they like: it is the one in which the
    text has a number of steps; without one, the one with more high bytes of zero, as all of ASCII has.
    """
    code, content = value[:8], value[8:]
    if code == _UNICODE:
        if content[:2] in (b"\xfe\xff", b"\xff\xfe"):
            return content.decode("utf-16", "replace")
        readings = [content.decode(order, "replace") for order in ("utf-16-be", "utf-16-le")]
        low_first = content[1::2].count(0) > content[::2].count(0)
        return next((text for text in readings if "Steps:" in text), readings[low_first])
    if code in (_ASCII, _UNDEFINED):
        return content.decode("utf-8", "replace").rstrip("\0")
    return ""


def read_texts(fields: dict[int, bytes]) -> dict[str, str]:
    """Texts as ComfyUI's savers keep them, `key:text`, one in each field of the camera."""
    found: dict[str, str] = {}
    for tag in (MODEL, MAKE, DESCRIPTION):
        key, colon, text = fields.get(tag, b"").rstrip(b"\0").decode("utf-8", "replace").partition(":")
        if colon:
            found.setdefault(key.strip().lower(), text)
    return found
