"""A picture's file says how it was drawn, in the same bytes each time, and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from storage.blobs.images import canonicalise
from storage.blobs.pictures.read import read_picture
from storage.blobs.pictures.written import JPEG_METADATA, WEBP_SIDE, write_picture
from storage.errors import InvalidRequest
from storage.records.generation.drawings import PictureFormat
from tests.docs.pages import code_spans, tables

PARAMETERS = "a mug\nNegative prompt: blurred\nSteps: 25, Sampler: DDIM, Seed: 1, Size: 64x48"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}, "10": {"class_type": "SaveImage", "inputs": {}}}
REQUEST: dict[str, Any] = {"prompt": "a mug", "seed": 2**53, "adapters": [{"model": "urn:air:sd1:lora:civitai:4@9"}]}
EVERY = pytest.mark.parametrize("form", PictureFormat)
WITH_EXIF = pytest.mark.parametrize("form", [PictureFormat.JPEG, PictureFormat.WEBP])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def a_picture(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of smooth colours."""
    return Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize(size) for turn in (0, 90, 180)])


def pixels(content: bytes) -> np.ndarray:
    """The decoded pixels of a file, in whole numbers that can be subtracted."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)


@EVERY
def test_what_was_written_is_read_back(form: PictureFormat) -> None:
    facts = read_picture(write_picture(a_picture(), form, PARAMETERS, GRAPH, REQUEST))

    assert (facts.format, facts.width, facts.height) == (form, 64, 48)
    assert (facts.parameters, facts.graph, facts.request) == (PARAMETERS, GRAPH, REQUEST)
    assert (facts.drawn.prompt, facts.drawn.steps, facts.drawn.seed) == ("a mug", 25, 1)


@EVERY
@settings(max_examples=40, deadline=None)
@given(prompt=TEXTS, name=TEXTS)
def test_any_text_is_read_back(form: PictureFormat, prompt: str, name: str) -> None:
    parameters = f"{prompt}\nSteps: 25, Sampler: DDIM, Seed: 1, Size: 16x16"
    request = {"prompt": prompt, name: [name]}

    facts = read_picture(write_picture(a_picture((16, 16)), form, parameters, None, request))

    assert (facts.parameters, facts.request, facts.graph) == (parameters, request, {})


@EVERY
def test_a_text_of_chinese_alone_is_not_taken_for_the_other_order_of_bytes(form: PictureFormat) -> None:
    # The low byte of this character is zero.
    parameters = "\u4e00" * 500 + "\nSteps: 25, Sampler: DDIM, Seed: 1"

    assert read_picture(write_picture(a_picture(), form, parameters, None, {})).parameters == parameters


@EVERY
def test_equal_pictures_make_equal_bytes(form: PictureFormat) -> None:
    content = write_picture(a_picture(), form, PARAMETERS, GRAPH, REQUEST)
    turned = {key: GRAPH[key] for key in reversed(GRAPH)}

    assert write_picture(a_picture(), form, PARAMETERS, turned, dict(reversed(REQUEST.items()))) == content
    assert write_picture(a_picture(), form, PARAMETERS, GRAPH, REQUEST | {"seed": 1}) != content


@EVERY
def test_an_image_s_own_metadata_does_not_get_in(form: PictureFormat) -> None:
    marked = a_picture()
    marked.info = {"comment": b"secret", "icc_profile": b"secret", "exif": b"secret", "dpi": (72, 72)}

    assert write_picture(marked, form, PARAMETERS, None, {}) == write_picture(a_picture(), form, PARAMETERS, None, {})
    assert marked.info["comment"] == b"secret"


@EVERY
def test_metadata_changes_no_pixel(form: PictureFormat) -> None:
    plain = write_picture(a_picture(), form, "", None, {})

    assert np.array_equal(pixels(plain), pixels(write_picture(a_picture(), form, PARAMETERS, GRAPH, REQUEST)))
    assert b"Exif" not in plain
    assert b"tEXt" not in plain


@WITH_EXIF
def test_quality_decides_between_pixels_and_bytes(form: PictureFormat) -> None:
    best, default, poor = (
        write_picture(a_picture(), form, "", None, {}, **asked) for asked in ({"quality": 100}, {}, {"quality": 10})
    )

    assert len(best) > len(default) > len(poor)
    assert np.abs(pixels(default) - np.asarray(a_picture(), dtype=int)).mean() < 3


@EVERY
def test_the_catalogue_takes_the_pictures_and_keeps_none_of_their_texts(form: PictureFormat, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(write_picture(a_picture(), form, PARAMETERS, GRAPH, REQUEST))
    plain = tmp_path / "plain"
    plain.write_bytes(write_picture(a_picture(), form, "", None, {}))

    canonicalise(source, target, 10_000)
    facts = read_picture(target.read_bytes())
    canonicalise(plain, source, 10_000)

    assert (facts.width, facts.height, facts.parameters, facts.graph, facts.request) == (64, 48, "", {}, {})
    assert target.read_bytes() == source.read_bytes()


def test_a_png_has_its_texts_where_pillow_and_with_it_a1111_and_comfyui_look() -> None:
    texts = Image.open(io.BytesIO(write_picture(a_picture(), PictureFormat.PNG, PARAMETERS, GRAPH, REQUEST))).info

    assert (texts["parameters"], json.loads(texts["prompt"]), json.loads(texts["darkroom"])) == (
        PARAMETERS,
        GRAPH,
        REQUEST,
    )


@WITH_EXIF
def test_exif_data_is_where_pillow_and_with_it_other_tools_look(form: PictureFormat) -> None:
    exif = Image.open(io.BytesIO(write_picture(a_picture(), form, PARAMETERS, GRAPH, {}))).getexif()

    assert exif.get_ifd(0x8769)[0x9286] == b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    assert (exif[0x0110][:7], json.loads(exif[0x0110][7:])) == ("prompt:", GRAPH)


def test_a_jpeg_leaves_out_the_graph_then_the_request_where_they_do_not_fit() -> None:
    large = {"1": {"class_type": "x" * 50_000, "inputs": {}}}

    without_graph = read_picture(write_picture(a_picture(), PictureFormat.JPEG, PARAMETERS, large, {"a": "b" * 20_000}))
    alone = read_picture(write_picture(a_picture(), PictureFormat.JPEG, PARAMETERS, large, {"a": "b" * 70_000}))

    assert (without_graph.parameters, without_graph.graph) == (PARAMETERS, {})
    assert without_graph.request == {"a": "b" * 20_000}
    assert (alone.parameters, alone.graph, alone.request) == (PARAMETERS, {}, {})


def test_a_jpeg_without_room_for_its_parameters_is_refused_and_other_formats_take_them() -> None:
    text = "x" * (JPEG_METADATA // 2) + "\nSteps: 1, Sampler: DDIM, Seed: 1"

    with pytest.raises(InvalidRequest, match="format: jpeg has room for 65,533 bytes"):
        write_picture(a_picture(), PictureFormat.JPEG, text, None, {})
    for form in (PictureFormat.PNG, PictureFormat.WEBP):
        assert read_picture(write_picture(a_picture(), form, text, None, {})).parameters == text


def test_a_size_that_a_format_does_not_hold_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="webp holds at most 16,383 pixels a side; ask for png"):
        write_picture(Image.new("RGB", (WEBP_SIDE + 1, 1)), PictureFormat.WEBP, "", None, {})


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_is_none_is_refused(quality: int) -> None:
    with pytest.raises(InvalidRequest, match=f"quality: {quality} is not from 1 to 100"):
        write_picture(a_picture(), PictureFormat.JPEG, "", None, {}, quality=quality)


@EVERY
def test_half_a_character_is_refused(form: PictureFormat) -> None:
    with pytest.raises(InvalidRequest, match="prompt: holds half of a surrogate pair"):
        write_picture(a_picture(), form, "a \ud83c mug", None, {})


def test_the_page_says_where_each_text_is() -> None:
    [table] = [
        table for table in tables() if table.page == "docs/reference/picture-metadata.md" and table.head[0] == "what"
    ]
    keys = Image.open(io.BytesIO(write_picture(a_picture(), PictureFormat.PNG, PARAMETERS, GRAPH, REQUEST))).info
    exif = Image.open(io.BytesIO(write_picture(a_picture(), PictureFormat.WEBP, PARAMETERS, GRAPH, REQUEST))).getexif()
    fields = {ExifTags.TAGS[tag]: value for tag, value in [*exif.items(), *exif.get_ifd(ExifTags.IFD.Exif).items()]}

    assert {span for row in table.rows for span in code_spans(row[1])} == set(keys)
    for row in table.rows:
        name, *prefixes = code_spans(row[2])
        assert all(fields[name].startswith(prefix.partition("{")[0]) for prefix in prefixes)
