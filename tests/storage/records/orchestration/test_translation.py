"""Steps of Civitai's orchestration as steps of ours, for every scheduler, engine and form of an AIR that they have."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import InvalidRequest
from storage.records.generation.drawings import PictureFormat
from storage.records.generation.scheduler_names import find_scheduler
from storage.records.generation.step_fields import AdapterRequest, StepOutput
from storage.records.generation.step_requests import StepRequest
from storage.records.jobs.choices import GenerationBackend
from storage.records.orchestration.reading import check_written, read_template, step_of
from storage.records.orchestration.translation import asked_of, plain_air, reference_of

AIR = "urn:air:sd1:checkpoint:civitai:2@3"
LACE = "urn:air:sd1:lora:civitai:4@5"
SCHEDULERS = (
    *("eulerA", "euler", "lms", "heun", "dpM2", "dpM2A", "dpM2SA", "dpM2M", "dpmsde", "lmsKarras", "dpM2Karras"),
    *("dpM2AKarras", "dpM2SAKarras", "dpM2MKarras", "dpmsdeKarras", "ddim", "plms", "uniPC", "lcm", "ddpm", "deis"),
    "dpM3MSDE",
)
"""`Scheduler` of the client, but for the two that nobody draws with here and the one that names none."""


def asked(
    kind: str, source: str | StepOutput | None = None, size: tuple[int, int] | None = None, **fields: Any
) -> StepRequest:
    drawn = {} if kind == "imageUpscaler" else {"model": AIR, "prompt": "a mug"}
    read = read_template(step_of(kind, {**drawn, **fields})).steps[0]
    return asked_of(read, source, size).step


def test_text_to_image() -> None:
    step = asked(
        "textToImage",
        negativePrompt="blurred",
        additionalNetworks={LACE: {"strength": 0.8, "type": "Lora"}},
        scheduler="dpM2MKarras",
        steps=30,
        cfgScale=6.5,
        seed=4294967295,
        width=512,
        height=768,
        clipSkip=2,
        quantity=3,
        batchSize=2,
        outputFormat="webP",
        engine="comfy",
    )
    assert step == StepRequest(
        name="textToImage",
        model=AIR,
        prompt="a mug",
        negative_prompt="blurred",
        adapters=(AdapterRequest(model=LACE, strength=0.8),),
        scheduler="dpM2MKarras",
        steps=30,
        guidance_scale=6.5,
        seed=4294967295,
        width=512,
        height=768,
        clip_skip=2,
        count=6,
        format=PictureFormat.WEBP,
        backend=GenerationBackend.COMFYUI,
    )


def test_from_a_picture() -> None:
    step = asked("textToImage", "a" * 64, sourceImage="x", sourceImageDenoiseStrenght=0.4)
    assert (step.operation, step.image, step.strength) == ("img2img", "a" * 64, 0.4)
    step = asked("textToImage", StepOutput(step="base", image=1), sourceImage={"$ref": "base"})
    assert step.image == StepOutput(step="base", image=1)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_the_client_is_found_or_refused_by_name(name: str) -> None:
    assert asked("textToImage", scheduler=name).scheduler == name
    find_scheduler(name)


@pytest.mark.parametrize(
    ("engine", "fields", "expected"),
    [
        ("sdcpp", {"sampleMethod": "dpm++2m", "schedule": "karras"}, ("dpm++2m", "karras")),
        ("sdcpp", {"sampleMethod": "euler_a", "schedule": "discrete", "uCache": "off"}, ("euler_a", "discrete")),
        ("comfy", {"sampler": "dpmpp_2m", "scheduler": "sgm_uniform"}, ("dpmpp_2m", "sgm_uniform")),
    ],
)
def test_image_gen(engine: str, fields: dict[str, Any], expected: tuple[str, str]) -> None:
    plain = {"engine": engine, "ecosystem": "sd1", "operation": "createImage", "loras": {LACE: 0.5}}
    step = asked("imageGen", **plain, **fields)
    assert (step.scheduler, step.spacing, step.adapters[0].strength) == (*expected, 0.5)
    find_scheduler(*expected)


def test_image_gen_from_a_picture() -> None:
    plain = {"engine": "comfy", "ecosystem": "sd1", "operation": "createVariant", "image": "x", "denoiseStrength": 0.3}
    step = asked("imageGen", "b" * 64, **plain)
    assert (step.operation, step.image, step.strength) == ("img2img", "b" * 64, 0.3)
    with pytest.raises(InvalidRequest, match=r"input\.image: is needed by createVariant"):
        asked("imageGen", **{**plain, "image": None})
    with pytest.raises(InvalidRequest, match=r"input\.image: is for createVariant"):
        asked("imageGen", "b" * 64, **{**plain, "operation": "createImage"})


def test_an_upscaler_doubles_each_time() -> None:
    step = asked("imageUpscaler", "c" * 64, (64, 48), image="x", numberOfRepeats=3)
    assert (step.operation, step.width, step.height, step.model) == ("upscale", 512, 384, None)
    with pytest.raises(InvalidRequest, match=r"input\.numberOfRepeats: makes 122 x 96 pixels of 61 x 48"):
        asked("imageUpscaler", "c" * 64, (61, 48), image="x")
    with pytest.raises(InvalidRequest, match=r"input\.numberOfRepeats"):
        asked("imageUpscaler", "c" * 64, (1024, 1024), image="x", numberOfRepeats=3)


@pytest.mark.parametrize(
    ("path", "image"),
    [("output.images[2].url", 2), ("output.images.1", 1), ("output.images[0]", 0), ("output.blob.url", 0)],
)
def test_a_reference_names_a_picture_of_a_step(path: str, image: int) -> None:
    read = read_template(step_of("imageUpscaler", {"image": {"$ref": "$base", "path": path}})).steps[0]
    assert reference_of(read) == StepOutput(step="base", image=image)


@pytest.mark.parametrize("path", ["output", "output.images", "output.images[x].url", "input.image", "", "output.text"])
def test_a_path_that_is_no_picture_is_refused(path: str) -> None:
    read = read_template(step_of("imageUpscaler", {"image": {"$ref": "base", "path": path}})).steps[0]
    with pytest.raises(InvalidRequest, match=r"input\.image\.path: .* is no picture of a step"):
        reference_of(read)


@pytest.mark.parametrize(
    "text", [AIR, AIR.removeprefix("urn:"), AIR.removeprefix("urn:air:"), f"{AIR}.safetensor", AIR.upper()]
)
def test_an_air_in_any_form_is_one(text: str) -> None:
    faults: dict[str, str] = {}
    assert (plain_air(text, "model", faults).lower(), faults) == (AIR, {})


@pytest.mark.parametrize("text", [f"{AIR}+17", f"{AIR}.ckpt", "urn:air:sd1:checkpoint:civitai:2", "civitai:2@3", ""])
def test_what_names_no_whole_version_is_refused(text: str) -> None:
    faults: dict[str, str] = {}
    plain_air(text, "model", faults)
    assert list(faults) == ["model"]


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("textToImage", {"quantity": -4, "batchSize": -4}, "quantity"),
        ("textToImage", {"batchSize": 0}, "batchSize"),
        ("textToImage", {"additionalNetworks": {f"{LACE}{n}": {} for n in range(13)}}, "additionalNetworks"),
        (
            "imageGen",
            {
                "engine": "sdcpp",
                "ecosystem": "sd1",
                "operation": "createImage",
                "loras": {f"{LACE}{n}": 1.0 for n in range(13)},
            },
            "loras",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_numbers_of_pictures_and_adapters_are_bounded_before_they_are_read(
    kind: str, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(kind, **fields)
    assert f"steps[0].input.{field}" in refused.value.fields


def test_what_a_caller_writes_is_not_nested_deeply() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nested more than 31 deep"):
        check_written("metadata", deep)
