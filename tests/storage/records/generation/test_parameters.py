"""What a picture's text says is what was asked for, whatever the prompt holds; texts of other tools are read, too."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.parameter_values import DrawnFacts, DrawnResource
from storage.records.generation.parameters import (
    MAX_TEXT,
    KnownAfterwards,
    has_settings,
    read_parameters,
    write_parameters,
)
from storage.records.generation.schedulers import SchedulerSettings

MODEL = DrawnModel(version_id=7, family="sd1", files={}, name="mugs v2", air="urn:air:sd1:checkpoint:civitai:3@7")
ADAPTER = DrawnAdapter(
    version_id=9, sha256="a" * 64, strength=0.8, name="ink: lines", air="urn:air:sd1:lora:civitai:4@9"
)
KNOWN = KnownAfterwards(
    sampler="DPM++ 2M",
    schedule_type="Karras",
    batch_shape=8,
    backend="local",
    version="0.1.0",
    model_hash="0123456789",
    adapter_hashes={"a" * 64: "b" * 12},
)
AWKWARD = [
    "",
    " blanks at both ends ",
    "two\nlines",
    "lines \n  with blanks  \n\nand none\n",
    'a "quoted" mug, (sks:1.2), back\\slash',
    "a mug\nSteps: 3",
    "a mug\nSteps: 3, Sampler: Euler, Seed: 4, Size: 8x8",
    "a mug\nNegative prompt: not this one",
    "Negative prompt: nor this",
    "a mug Negative prompt: inside",
    "Template: {red|blue} mug",
    "\ufeffa mug",
    "a mug\r\nwith a carriage return\x0b\x85\u2028and more",
    "杯子, кружка, \U0001f3fa",
    "ends in a colon:",
    "[]{}, Civitai resources: [1]",
]
# No lone surrogates: they are no text, and no JSON that we take holds one.
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8"), max_size=60))


def a_drawing(prompt: str = "a photo of a sks mug", negative: str = "", model: DrawnModel = MODEL) -> Drawing:
    """A drawing of one image."""
    return Drawing(
        model=model,
        images=(DrawnImage(prompt=prompt, seed=1),),
        negative_prompt=negative,
        scheduler=SchedulerSettings(name="dpmpp_2m", spacing="karras"),
        guidance_scale=7,
        width=512,
        height=768,
    )


def written(drawing: Drawing, known: KnownAfterwards = KNOWN) -> str:
    """The text of a drawing's first image."""
    return write_parameters(drawing, drawing.images[0], known)


def test_the_text_has_the_form_of_a1111() -> None:
    assert written(a_drawing(negative="blurred")).split("\n") == [
        "a photo of a sks mug",
        "Negative prompt: blurred",
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, "
        "Model hash: 0123456789, Model: mugs v2, RNG: CPU, Batch shape: 8, Backend: local, Version: Darkroom 0.1.0, "
        'Civitai resources: [{"type":"checkpoint","modelVersionId":7,"modelName":"mugs v2",'
        '"air":"urn:air:sd1:checkpoint:civitai:3@7"}]',
    ]


@settings(max_examples=80, deadline=None)
@given(prompt=TEXTS, negative=TEXTS, name=TEXTS)
@example(prompt="a", negative="Steps: 1, Sampler: x, Seed: 2, Size: 3x4", name='Seed: 9, "Size": [1]')
def test_whatever_was_asked_for_is_read_back(prompt: str, negative: str, name: str) -> None:
    drawing = a_drawing(prompt, negative, DrawnModel(version_id=7, family="sd1", files={}, name=name))

    facts = read_parameters(written(drawing))

    assert (facts.prompt, facts.negative_prompt, facts.model.name) == (prompt, negative, name)
    assert (facts.steps, facts.seed, facts.width, facts.height) == (25, 1, 512, 768)
    assert (facts.sampler, facts.schedule_type) == ("DPM++ 2M", "Karras")
    assert (facts.guidance_scale, facts.other) == (7.0, {"RNG": "CPU"})


def test_every_prompt_that_the_form_carries_is_written_once() -> None:
    assert written(a_drawing("two\nlines, (sks:1.2)", "blurred")).count("(sks:1.2)") == 1
    assert written(a_drawing(" blanks at both ends ")).count("blanks at both ends") == 2


def test_everything_that_a_drawing_says_is_read_back() -> None:
    plain = a_drawing()
    drawing = Drawing(
        model=MODEL,
        adapters=(ADAPTER,),
        operation=Operation.INPAINT,
        images=plain.images,
        scheduler=SchedulerSettings(name="ddim", eta=0.3),
        guidance_scale=6.123456789,
        guidance_rescale=0.7,
        width=64,
        height=72,
        clip_skip=2,
        source="d" * 64,
        mask="e" * 64,
        strength=1.0,
    )

    facts = read_parameters(written(drawing, msgspec.structs.replace(KNOWN, sampler="DDIM", schedule_type="")))

    assert facts == DrawnFacts(
        prompt="a photo of a sks mug",
        steps=25,
        sampler="DDIM",
        eta=0.3,
        guidance_scale=6.123456789,
        guidance_rescale=0.7,
        seed=1,
        width=64,
        height=72,
        clip_skip=2,
        strength=1.0,
        operation="inpaint",
        model=DrawnResource(
            kind="checkpoint", name="mugs v2", air=MODEL.air, version_id=7, weight=None, hash="0123456789"
        ),
        resources=(
            DrawnResource(kind="lora", name="ink: lines", air=ADAPTER.air, version_id=9, weight=0.8, hash="b" * 12),
        ),
        batch_shape=8,
        backend="local",
        version="Darkroom 0.1.0",
        other={"RNG": "CPU"},
    )


def test_what_is_unknown_is_not_written() -> None:
    unnamed = a_drawing(model=DrawnModel(version_id=7, family="sd1", files={}))

    text = written(unnamed, KnownAfterwards(sampler="DDIM", batch_shape=1, backend="local", version="0.1.0"))

    assert [word for word in ("Model:", "hash", "Schedule", "Clip", "Denoising", "Eta", "air") if word in text] == []


SITE = (
    "Steps: 22, Sampler: DPM++ 2M Karras, CFG scale: 3.8, Seed: 894409639, Size: 832x1216, Clip skip: 2, Created "
    'Date: 2024-09-23T06:17:42.9952795Z, Civitai resources: [{"type":"checkpoint","modelVersionId":128078,"modelName":'
    '"XL [base], v1"},{"type":"lora","weight":0.85,"modelVersionId":210432,"modelName":"Double Exposure"}], '
    "Civitai metadata: {}"
)


def test_a_text_of_civitais_site_is_read() -> None:
    facts = read_parameters(f"a knight, \nworld\nNegative prompt: greyscale\n{SITE}")

    assert (facts.prompt, facts.negative_prompt) == ("a knight, \nworld", "greyscale")
    assert (facts.sampler, facts.clip_skip, facts.model.version_id) == ("DPM++ 2M Karras", 2, 128078)
    assert (facts.model.name, facts.resources[0].weight) == ("XL [base], v1", 0.85)
    assert facts.other == {"Created Date": "2024-09-23T06:17:42.9952795Z", "Civitai metadata": "{}"}


def test_a_text_on_one_line_is_read() -> None:
    facts = read_parameters(f"a knight, Steps: many. Negative prompt: {SITE}")

    assert (facts.prompt, facts.negative_prompt, facts.steps) == ("a knight, Steps: many.", "", 22)


def test_a_text_of_a1111_with_templates_and_hashes_is_read() -> None:
    facts = read_parameters(
        "a red mug <lora:ink:0.6>\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 4, "
        'Size: 512x512, Model hash: 6ce0161689, Model: v1-5, Lora hashes: "ink: e3f9c2b1a8d7, wash: 00aa", '
        'Hires prompt: "a mug, bright", Version: v1.9.4\nTemplate: a {red|blue} mug, Steps: 9\nNegative Template: x'
    )

    assert (facts.prompt, facts.version) == ("a red mug <lora:ink:0.6>", "v1.9.4")
    assert (facts.sampler, facts.schedule_type) == ("Euler a", "Automatic")
    assert [(one.kind, one.name, one.hash) for one in facts.resources] == [
        ("lora", "ink", "e3f9c2b1a8d7"),
        ("lora", "wash", "00aa"),
    ]
    assert (facts.model.hash, facts.other) == ("6ce0161689", {"Hires prompt": "a mug, bright"})


def test_a_text_of_a_saver_node_of_comfyui_is_read() -> None:
    facts = read_parameters(
        "a cat\nNegative prompt: blur\nSteps: 30, Sampler: dpmpp_2m, Scheduler: karras, CFG scale: 5.0, Seed: 42, "
        'Size: 640x960, Clip skip: -2, Model: a, b, Hashes: {"model":"123","LORA:style, special":"456"}, '
        "Version: ComfyUI"
    )

    assert (facts.sampler, facts.schedule_type, facts.seed, facts.width) == ("dpmpp_2m", "karras", 42, 640)
    assert (facts.model.name, facts.model.hash) == ("a, b", "123")
    assert facts.resources == (DrawnResource(kind="lora", name="style, special", hash="456"),)
    assert (facts.clip_skip, facts.other) == (2, {})


def test_a_text_without_settings_is_a_prompt() -> None:
    facts = read_parameters("a mug: large, round\nNegative prompt: small")

    assert facts == DrawnFacts(
        prompt="a mug: large, round", negative_prompt="small", model=DrawnResource(kind="checkpoint")
    )
    assert not has_settings("a mug: large, round")


def test_values_of_another_form_are_kept_under_their_keys() -> None:
    facts = read_parameters(
        "x\nSteps: many, Sampler: [1], CFG scale: nan, Seed: 9999999999999999999999, Size: 8 by 8, "
        'Clip skip: {"a": NaN}, Civitai resources: "none", Hashes: [[]], Denoising strength: inf'
    )

    assert facts.steps is facts.guidance_scale is facts.seed is facts.width is facts.strength is None
    assert facts.other == {
        "Steps": "many",
        "Sampler": "[1]",
        "CFG scale": "nan",
        "Seed": "9999999999999999999999",
        "Size": "8 by 8",
        "Clip skip": '{"a":null}',
        "Civitai resources": "none",
        "Hashes": "[[]]",
        "Denoising strength": "inf",
    }


@pytest.mark.parametrize(
    "part",
    [",", "\n", " ", "a: b,c", 'k: ["x, k: [", ', "[", "Steps: 1, Sampler: ", "Negative prompt:", "x: a\\", '"'],
)
def test_a_hostile_text_costs_no_more_than_its_length(part: str) -> None:
    text = "Steps: 1, Sampler: x, Seed: 2, a: " + part * (200_000 // len(part))
    started = time.process_time()

    read_parameters(text)

    # Measured: at most 0.07 s; what grows with the square of the length would take minutes.
    assert time.process_time() - started < 2


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="1,048,577 characters"):
        read_parameters("x" * (MAX_TEXT + 1))
