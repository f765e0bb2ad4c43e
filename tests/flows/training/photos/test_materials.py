"""Photos as they come back from the store: in one order, with their prompts, or refused by name."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from flows.training.photos.materials import Materials
from storage.errors import JobCannotSucceed
from storage.records.jobs.data_sets import DataSetImage, content_hash
from tests.flows.training.tiny import recipe


def png_of(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "PNG")
    return stream.getvalue()


def a_row(name: str, content: bytes, caption: str = "", repeats: int = 1) -> DataSetImage:
    digest = hashlib.sha256(content).hexdigest()
    return DataSetImage(
        position=0, name=name, sha256=digest, size=9, width=40, height=30, caption=caption, repeats=repeats
    )


def test_the_order_of_upload_changes_nothing():
    contents = {hashlib.sha256(png_of(colour)).hexdigest(): png_of(colour) for colour in ("red", "blue", "green")}
    rows = [
        a_row("a", png_of("red"), "on the beach"),
        a_row("b", png_of("blue"), repeats=3),
        a_row("c", png_of("green"), "a sks mug at sea"),
    ]
    rows = [msgspec.structs.replace(row, position=position) for position, row in enumerate(rows)]
    one, other = (Materials(Path(), order, recipe(), contents.__getitem__) for order in (rows, rows[::-1]))
    assert (one.prompts, one.repeats, one.positions) == (other.prompts, other.repeats, other.positions)
    assert [rows[position].sha256 for position in one.positions] == one.sources
    assert [photo.decoded().tobytes() for photo in one.photos] == [photo.decoded().tobytes() for photo in other.photos]
    assert set(zip(one.prompts, one.repeats, strict=True)) == {
        ("a photo of a sks mug, on the beach", 1),
        ("a photo of a sks mug", 3),
        ("a sks mug at sea", 1),
    }


def test_a_caption_that_is_the_whole_prompt_stays_as_it_is():
    """Of kohya's folders for two subjects the second must not be taught as the first."""
    content = png_of("red")
    plain = a_row("a", content, "ohwx mug")
    whole, silent = (msgspec.structs.replace(plain, whole_prompt=True, caption=text) for text in ("ohwx mug", ""))
    materials = Materials(Path(), [plain, whole, silent], recipe(), lambda sha256: content)
    assert materials.prompts == ["a photo of a sks mug", "a photo of a sks mug, ohwx mug", "ohwx mug"]
    assert len({content_hash([row]) for row in (plain, whole, silent)}) == 3
    assert content_hash([silent]) == content_hash([msgspec.structs.replace(silent, whole_prompt=False)])


def test_a_photo_that_is_there_twice_is_kept_out_twice():
    contents = {hashlib.sha256(png_of(colour)).hexdigest(): png_of(colour) for colour in ("red", "blue", "green")}
    last = contents[max(contents)]
    rows = [a_row(str(number), content) for number, content in enumerate(contents.values())]
    rows += [a_row("copy", last, "on the beach"), a_row("another", last)]
    for held_out, learned in ((0, 5), (1, 2), (2, 1)):
        wanted = recipe(validation_photos=held_out, validation_every=5)
        materials = Materials(Path(), rows, wanted, contents.__getitem__)
        assert materials.learned == learned
        assert set(materials.sources[:learned]).isdisjoint(materials.sources[learned:])
        assert len(set(materials.sources[learned:])) == held_out


@pytest.mark.parametrize("content", [b"", b"no picture", png_of("red")[:60]])
def test_a_photo_that_does_not_open_fails_the_job_by_its_name(content: bytes):
    with pytest.raises(JobCannotSucceed, match=r"Photo 'a.png' does not open \(.*\). Upload the photos again"):
        Materials(Path(), [a_row("a.png", content)], recipe(), lambda sha256: content)
