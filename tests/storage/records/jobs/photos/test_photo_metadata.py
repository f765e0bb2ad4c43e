from __future__ import annotations

import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.data_sets import DataSetImage, content_hash
from storage.records.jobs.photos.photo_metadata import PhotoMetadata, read_metadata, write_metadata


def test_what_is_written_is_read():
    lines = [
        PhotoMetadata(file_name="a.png", text="on the\u2028beach"),
        PhotoMetadata(file_name="b.png", repeats=3),
    ]
    assert list(read_metadata(write_metadata(lines)).values()) == lines


def test_a_caption_is_one_line_under_any_of_its_names():
    found = read_metadata('{"file_name": "a", "caption": " at\\n sea "}\n\n{"file_name": "b", "prompt": "x", "n": [1]}')
    assert [one.words for one in found.values()] == ["at sea", "x"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("[]", "line 1: "),
        ('\n{"text": "no name"}', "line 2: .*file_name"),
        ('{"file_name": "a", "text": "' + "x" * 2001 + '"}', "line 1: .*2000"),
        ('{"file_name": "a", "repeats": 1001}', "line 1: .*1000"),
        ('{"file_name": "a", "text": "x\\u0000y"}', "line 1: .*control characters"),
        ('{"file_name": "a\\u001b[2J"}', "line 1: .*control characters"),
        ('{"file_name": "a", "x": ' + "[" * 100_000, "line 1: "),
    ],
)
def test_a_line_that_is_none_is_named(lines: str, reason: str):
    with pytest.raises(InvalidRequest, match=reason):
        read_metadata(lines)


def an_image(name: str, **said: object) -> DataSetImage:
    return DataSetImage(position=0, name=name, sha256="a" * 64, size=1, width=9, height=9, **said)  # pyright: ignore[reportArgumentType]


def test_what_is_said_of_a_photo_is_a_part_of_its_data_set():
    plain = content_hash([an_image("a.png")])
    # As it was before there were captions.
    assert plain == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"
    assert content_hash([an_image("other.png")]) == plain
    others = {content_hash([an_image("a.png", caption="x")]), content_hash([an_image("a.png", repeats=2)])}
    assert len(others | {plain}) == 3
