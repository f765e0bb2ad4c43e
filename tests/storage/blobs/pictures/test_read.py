"""Pictures of other tools say how they were drawn; what is personal, broken or of another form is not passed on."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image, PngImagePlugin

from storage.blobs.pictures.containers import MAX_TEXT_BYTES
from storage.blobs.pictures.exif import MAKE, MODEL, written_exif
from storage.blobs.pictures.read import read_picture
from storage.errors import ImageRefused
from storage.records.generation.drawings import PictureFormat
from storage.records.generation.parameter_values import DrawnFacts

PARAMETERS = "a mug\nNegative prompt: blurred\nSteps: 25, Sampler: DDIM, Seed: 1, Size: 64x48"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}


def png(**texts: str) -> bytes:
    """A PNG with these texts, as Pillow writes them."""
    info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (64, 48)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def with_exif(form: str, exif: bytes) -> bytes:
    """A picture with this EXIF data."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48)).save(stream, form, exif=exif)
    return stream.getvalue()


def test_a_picture_of_a1111_and_comfyui_is_read() -> None:
    content = png(parameters=PARAMETERS, prompt=json.dumps(GRAPH), workflow="{}")

    facts = read_picture(content)

    assert (facts.format, facts.width, facts.height, facts.size) == (PictureFormat.PNG, 64, 48, len(content))
    assert (facts.parameters, facts.graph, facts.request) == (PARAMETERS, GRAPH, {})
    assert (facts.drawn.prompt, facts.drawn.negative_prompt, facts.drawn.seed) == ("a mug", "blurred", 1)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
def test_exif_data_of_other_tools_is_read_in_every_format(form: str) -> None:
    # As ComfyUI's own node for WebP writes its graph.
    facts = read_picture(with_exif(form, written_exif({MODEL: f"prompt:{json.dumps(GRAPH)}"}, PARAMETERS)))

    assert (facts.parameters, facts.graph, facts.drawn.steps) == (PARAMETERS, GRAPH, 25)


def test_a_text_of_the_png_counts_before_its_exif_data() -> None:
    info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("parameters", PARAMETERS)
    Image.new("RGB", (64, 48)).save(stream, "PNG", pnginfo=info, exif=written_exif({}, PARAMETERS + ", Version: other"))

    assert read_picture(stream.getvalue()).parameters == PARAMETERS


def test_a_plain_picture_says_nothing() -> None:
    facts = read_picture(png())

    assert (facts.parameters, facts.drawn, facts.graph, facts.request) == ("", DrawnFacts(), {}, {})


def test_a_photo_says_nothing_of_where_and_by_whom_it_was_taken() -> None:
    exif = Image.Exif()
    exif[MAKE], exif[MODEL], exif[0x013B], exif[0x010E] = "Camera: secret", "secret", "secret", "secret: secret"
    exif.get_ifd(0x8825)[0x001D] = "2026:01:01"
    exif.get_ifd(0x8825)[0x001C] = b"secret"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0secret, at home"

    facts = read_picture(with_exif("JPEG", exif.tobytes()))

    assert "secret" not in repr(facts)
    assert "2026" not in repr(facts)


@pytest.mark.parametrize(
    "text",
    [
        "a cat",
        "[1]",
        '{"3": 5}',
        '{"3": {"class_type": 5, "inputs": {}}}',
        '{"3": {"class_type": "x"}}',
        "{",
        "[" * 10**5,
    ],
    ids=range(7),
)
def test_what_is_no_graph_is_none(text: str) -> None:
    assert read_picture(png(prompt=text)).graph == {}


def test_a_graph_with_values_that_are_no_numbers_is_read() -> None:
    text = '{"3": {"class_type": "x", "inputs": {"a": [NaN, Infinity]}, "is_changed": [NaN]}}'

    assert read_picture(png(prompt=text)).graph["3"]["inputs"] == {"a": [None, None]}


@pytest.mark.parametrize("text", ["no json", "[1]", "1" * 5_000, '"x"'], ids=range(4))
def test_a_request_of_another_form_is_none(text: str) -> None:
    facts = read_picture(png(darkroom=text, parameters=PARAMETERS))

    assert (facts.request, facts.drawn.seed) == ({}, 1)


def test_a_graph_says_how_a_picture_was_drawn_where_no_text_does() -> None:
    latents = {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8}}
    sampler = {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 9, "positive": [], "latent_image": ["1", 0]}}
    graph = json.dumps({"1": latents, "3": sampler})

    assert (read_picture(png(prompt=graph)).drawn.seed, read_picture(png(prompt=graph)).drawn.width) == (5, 8)
    assert read_picture(png(prompt=graph, parameters=PARAMETERS)).drawn.seed == 1


def test_json_of_swarmui_is_kept_and_is_no_prompt() -> None:
    text = '{"sui_image_params": {"prompt": "a mug"}}'

    facts = read_picture(png(parameters=text))

    assert (facts.parameters, facts.drawn) == (text, DrawnFacts())


def test_a_prompt_of_wildcards_alone_is_a_prompt() -> None:
    assert read_picture(png(parameters="{red|blue} mug")).drawn.prompt == "{red|blue} mug"


def test_a_text_as_long_as_may_be_is_read() -> None:
    text = PARAMETERS + " " * (MAX_TEXT_BYTES - len(PARAMETERS))

    assert read_picture(png(parameters=text)).drawn.seed == 1


def test_damaged_exif_data_is_refused_by_name() -> None:
    with pytest.raises(ImageRefused, match="EXIF data that is damaged") as caught:
        read_picture(with_exif("JPEG", b"Exif\0\0MM\0*\xff\xff\xff\xff"))

    assert caught.value.reason == "broken_metadata"
