"""From a step to a drawing: what is left open is filled in, and what does not fit is named by its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.generation.drawings import (
    NO_MODEL,
    Drawing,
    DrawnAdapter,
    DrawnModel,
    Operation,
    PictureFormat,
)
from storage.records.generation.prompts import PromptBudget
from storage.records.generation.resolved_drawings import AdapterFacts, ModelFacts, SourcePicture, drawing_of
from storage.records.generation.step_requests import StepRequest
from storage.records.jobs.sampled_sets import SamplerSettings

MODEL = DrawnModel(version_id=3, family="sd1", files={"unet": "a" * 64})
FACTS = ModelFacts(model=MODEL, resolution=512, sampler=SamplerSettings(steps=30, guidance_scale=5.0))
LORA = AdapterFacts(adapter=DrawnAdapter(version_id=7, sha256="b" * 64), family="sd1")
SOURCE = SourcePicture("c" * 64, 502, 301)


def resolved(body: dict[str, Any], **known: Any) -> Drawing:
    step = msgspec.convert({"model": 3, "prompt": "a mug", **body}, StepRequest)
    given = {"facts": FACTS, "adapters": (), "seed": 9, **known}
    return drawing_of(step, given.pop("facts"), given.pop("adapters"), given.pop("seed"), **given)


def faults_of(body: dict[str, Any], **known: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        resolved(body, **known)
    return refused.value.fields


def test_what_is_left_out_is_the_models_own() -> None:
    drawing = resolved({})

    assert (drawing.width, drawing.height, drawing.steps, drawing.guidance_scale) == (512, 512, 30, 5.0)
    assert (drawing.scheduler.name, drawing.format, drawing.exact) == ("ddim", PictureFormat.PNG, False)
    assert [(one.prompt, one.seed) for one in drawing.images] == [("a mug", 9)]


def test_what_is_asked_for_is_drawn() -> None:
    body = {
        "steps": 12,
        "guidanceScale": 0.0,
        "guidanceRescale": 0.5,
        "width": 768,
        "height": 320,
        "seed": 4,
        "count": 3,
        "clipSkip": 2,
        "scheduler": "DPM++ 2M Karras",
        "format": "webp",
        "exact": True,
        "negativePrompt": "blurred",
        "adapters": [{"model": 7, "strength": 0.8}],
    }

    drawing = resolved(body, adapters=[LORA])

    assert (drawing.steps, drawing.guidance_scale, drawing.guidance_rescale) == (12, 0.0, 0.5)
    assert (drawing.width, drawing.height, drawing.clip_skip) == (768, 320, 2)
    assert [one.seed for one in drawing.images] == [4, 5, 6]
    assert drawing.scheduler.spacing == "karras"
    assert [(one.version_id, one.strength) for one in drawing.adapters] == [(7, 0.8)]
    assert (drawing.negative_prompt, drawing.format, drawing.exact) == ("blurred", PictureFormat.WEBP, True)


def test_each_picture_chooses_by_its_own_seed() -> None:
    drawing = resolved(
        {"prompt": "a {red|blue|green} mug on the __place__", "wildcards": {"place": ["beach", "snow"]}, "count": 24}
    )

    prompts = {one.prompt for one in drawing.images}
    assert len(prompts) == 6
    again = resolved(
        {"prompt": "a {red|blue|green} mug on the __place__", "wildcards": {"place": ["beach", "snow"]}, "seed": 12}
    )
    assert again.images[0] == drawing.images[3]


def test_seeds_go_on_from_nothing_behind_the_largest() -> None:
    assert [one.seed for one in resolved({"seed": 2**32 - 1, "count": 2}).images] == [2**32 - 1, 0]


def test_a_source_gives_its_size_as_near_as_the_grid_allows() -> None:
    drawing = resolved({"operation": "img2img", "image": {"$ref": "x"}, "strength": 0.4}, source=SOURCE)

    assert (drawing.width, drawing.height) == (504, 304)
    assert (drawing.operation, drawing.source, drawing.strength) == (Operation.IMG2IMG, SOURCE.sha256, 0.4)
    assert resolved({"operation": "img2img", "width": 64}, source=SOURCE).width == 64


def test_upscaling_needs_no_model() -> None:
    step = StepRequest(operation=Operation.UPSCALE, width=4096, height=2048)

    drawing = drawing_of(step, None, (), 1, source=SOURCE)

    assert (drawing.model, drawing.width, drawing.height, len(drawing.images)) == (NO_MODEL, 4096, 2048, 1)


@pytest.mark.parametrize(
    ("body", "known", "field", "said"),
    [
        ({"width": 2056}, {}, "width", "more than the 2048 pixels a side"),
        ({"scheduler": "Eular a"}, {}, "scheduler", "Euler"),
        ({"scheduler": "DPM++ 2M Karras", "spacing": "exponential"}, {}, "spacing", "karras"),
        ({"scheduler": "Euler", "eta": 0.5}, {}, "eta", "leave it out"),
        ({"prompt": "a <lora:mug:1>"}, {}, "prompt", "adapters"),
        ({"prompt": "a __colour__ mug"}, {}, "prompt", "colour"),
        ({"negativePrompt": "a {b"}, {}, "negativePrompt", "{"),
        (
            {"adapters": [{"model": 7}]},
            {"adapters": [msgspec.structs.replace(LORA, family="sdxl")]},
            "adapters[0].model",
            "family sdxl",
        ),
        ({"adapters": [{"model": 7}] * 2}, {"adapters": [LORA, LORA]}, "adapters[1].model", "is there twice"),
        (
            {"operation": "inpaint"},
            {"source": SOURCE, "mask": SourcePicture("d" * 64, 502, 300)},
            "mask",
            "502 x 300 pixels and the image 502 x 301",
        ),
        ({"operation": "img2img", "strength": 0.0}, {"source": SOURCE}, "strength", ""),
    ],
)
def test_what_does_not_fit_is_named_by_its_field(
    body: dict[str, Any], known: dict[str, Any], field: str, said: str
) -> None:
    assert said in faults_of(body, **known)[field]


def test_a_family_has_a_limit_in_all() -> None:
    large = ModelFacts(model=msgspec.structs.replace(MODEL, family="sdxl"), resolution=1024)

    assert "4,194,304 pixels" in faults_of({"width": 4096, "height": 2048}, facts=large)["width"]
    assert resolved({"width": 4096, "height": 1024}, facts=large).width == 4096


def test_every_fault_is_named_at_once() -> None:
    faults = faults_of({"width": 2056, "scheduler": "none", "prompt": "<lora:a:1>"})

    assert sorted(faults) == ["prompt", "scheduler", "width"]


def test_what_would_take_long_to_read_is_refused_over_all_steps() -> None:
    heavy = {"prompt": "{" + "|".join(map(str, range(200))) + "}" + "(" * 45 + "(a)" * 500 + ")" * 45, "count": 64}
    assert "too many brackets" in faults_of(heavy)["prompt"]
    budget = PromptBudget()
    resolved({**heavy, "count": 8}, budget=budget)
    with pytest.raises(InvalidRequest, match="too many brackets"):
        for seed in range(16):
            resolved({**heavy, "count": 8, "seed": seed * 8}, budget=budget)


def test_lists_of_a_step_are_short_enough_to_be_kept() -> None:
    found = faults_of({"prompt": "__a__", "wildcards": {"a": ["x" * 2000] * 40}})
    assert found == {"wildcards": "its lists are 80,001 characters in all; the limit is 65,536. Leave out values"}
    for lists in ({"a" * 65: ["x"]}, {"a": ["x" * 2001]}):
        with pytest.raises(msgspec.ValidationError, match="length <="):
            resolved({"prompt": "__a__", "wildcards": lists})
