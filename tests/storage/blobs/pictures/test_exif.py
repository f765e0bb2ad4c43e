"""EXIF data: a comment and three texts are read, whoever wrote them, and nothing else in or outside of it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.blobs.pictures.exif import (
    MAKE,
    MAX_FIELD_BYTES,
    MODEL,
    PREFIX,
    USER_COMMENT,
    read_comment,
    read_fields,
    read_texts,
    written_exif,
)
from storage.errors import ImageRefused

TEXT = "a mug, Steps: 25"


def fields_of(texts: dict[int, str], comment: str) -> dict[int, bytes]:
    """What is read of EXIF data that was written."""
    written = written_exif(texts, comment)
    assert written.startswith(PREFIX)
    return read_fields(written.removeprefix(PREFIX))


def tiff(*fields: tuple[int, int, int, bytes], order: str = ">", behind: bytes = b"") -> bytes:
    """TIFF data of one folder: tag, type, length and the four bytes of each field."""
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, len(fields))
    entries = (struct.pack(f"{order}HHI", *field[:3]) + field[3] for field in fields)
    return head + b"".join(entries) + b"\0" * 4 + behind


@settings(max_examples=60, deadline=None)
@given(
    texts=st.dictionaries(
        st.sampled_from([MAKE, MODEL]), st.text(st.characters(codec="ascii"), min_size=1, max_size=9)
    ),
    comment=st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
)
def test_what_was_written_is_read_back(texts: dict[int, str], comment: str) -> None:
    found = fields_of(texts, comment)

    assert {tag: value[:-1].decode() for tag, value in found.items() if tag != USER_COMMENT} == texts
    assert found[USER_COMMENT] == b"UNICODE\0" + comment.encode("utf-16-be")


def test_texts_without_a_comment_and_nothing_at_all_are_written() -> None:
    assert fields_of({MODEL: "prompt:{}"}, "") == {MODEL: b"prompt:{}\0"}
    assert written_exif({}, "") == b""


def test_the_comment_has_the_type_that_the_standard_asks_for() -> None:
    content = written_exif({}, TEXT)

    place = content.index(struct.pack(">H", USER_COMMENT))
    assert struct.unpack_from(">HHI", content, place) == (USER_COMMENT, 7, 8 + 2 * len(TEXT))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"UNICODE\0" + TEXT.encode("utf-16-be"), TEXT),
        (b"UNICODE\0" + TEXT.encode("utf-16-le"), TEXT),
        (b"UNICODE\0" + b"\xff\xfe" + TEXT.encode("utf-16-le"), TEXT),
        (b"UNICODE\0" + b"\xfe\xff" + TEXT.encode("utf-16-be"), TEXT),
        (b"UNICODE\0" + "words alone".encode("utf-16-le"), "words alone"),
        (b"ASCII\0\0\0" + TEXT.encode(), TEXT),
        (b"\0" * 8 + "é".encode() + b"\0\0", "é"),
        (b"JIS\0\0\0\0\0" + TEXT.encode(), ""),
        (b"UNICODE\0a", "\ufffd"),
        (b"short", ""),
        (b"", ""),
    ],
)
def test_a_comment_is_read_in_every_way_that_tools_write_it(value: bytes, text: str) -> None:
    assert read_comment(value) == text


def test_texts_of_the_camera_fields_are_found_by_their_keys() -> None:
    texts = read_texts({MODEL: b"prompt:{}\0", MAKE: b"Workflow: x:y\0"})

    assert texts == {"prompt": "{}", "workflow": " x:y"}
    assert read_texts({MODEL: b"NIKON D90\0", MAKE: b"\xff\xfe"}) == {}


@pytest.mark.parametrize("order", "<>")
def test_other_fields_are_never_read(order: str) -> None:
    place = (b"\0\0\0", b"\1")
    camera = (0x8825, 4, 1, b"".join(place if order == ">" else place[::-1]))
    artist, number = (0x013B, 2, 2, b"Me\0\0"), (MAKE, 3, 1, b"\0\1\0\0")

    assert read_fields(tiff(camera, artist, number, (MODEL, 2, 3, b"x:y\0"), order=order)) == {MODEL: b"x:y"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MM",
        b"XX\0*\0\0\0\x08\0\0",
        b"MM\0*\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        tiff((MODEL, 2, 10, b"\xff\xff\xff\xff")),
        tiff((0x8769, 4, 1, b"\xff\xff\xff\xff")),
        tiff((0x8769, 4, 1, b"\0\0")),
    ],
    ids=range(8),
)
def test_data_that_leads_outside_of_itself_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused, match="has EXIF data that is damaged; save it again") as caught:
        read_fields(data)

    assert caught.value.reason == "broken_metadata"


def test_a_text_that_is_too_long_is_refused_before_it_is_copied() -> None:
    fields = [(MODEL, 2, MAX_FIELD_BYTES + 1, b"\0\0\0\x08")]

    with pytest.raises(ImageRefused, match="a text of more than 2,097,152 bytes") as caught:
        read_fields(tiff(*fields, behind=bytes(MAX_FIELD_BYTES + 1)))

    assert caught.value.reason == "too_much_text"


def test_a_folder_that_leads_to_itself_is_read_once() -> None:
    assert read_fields(tiff((0x8769, 4, 1, b"\0\0\0\x08"), (MODEL, 2, 3, b"x:y\0"))).keys() == {MODEL, 0x8769}
