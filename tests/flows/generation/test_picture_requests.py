"""What is written into a picture draws the same picture again."""

from __future__ import annotations

import msgspec
import pytest

from flows.generation.picture_requests import graph_of_picture, literal, request_of_picture
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation, PictureFormat
from storage.records.generation.resolved_drawings import AdapterFacts, ModelFacts, SourcePicture, drawing_of
from storage.records.generation.schedulers import SchedulerSettings
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.generation.wildcards import without_choices
from storage.records.generation.workflows import steps_of
from storage.records.jobs.sampled_sets import SamplerSettings

MODEL = DrawnModel(version_id=3, family="sd1", files={"unet": "1" * 64}, name="mugs")
BASE = msgspec.structs.replace(MODEL, version_id=0, name="starter")
ADAPTERS = tuple(DrawnAdapter(version_id=number, sha256=f"{number:064d}") for number in (7, 8))
PLAIN = Drawing(
    model=MODEL, images=(DrawnImage(prompt="a mug", seed=5),), width=512, height=768, steps=20, strength=1.0
)


def redrawn(drawing: Drawing, *, shape: int = 8) -> Drawing:
    """The drawing of the request that is written into its last picture."""
    request = request_of_picture(drawing, len(drawing.images) - 1, shape=shape, backend="local")
    [step] = steps_of(msgspec.convert(request, WorkflowRequest))
    named = [drawing.adapters[0]] if drawing.model.version_id == 0 and drawing.adapters else []
    rest = [one for one in drawing.adapters if one not in named]
    assert [one.model for one in step.adapters] == [one.version_id for one in rest]
    facts = ModelFacts(model=drawing.model, resolution=64, sampler=SamplerSettings(steps=3, guidance_scale=9.0))
    known = [AdapterFacts(adapter=msgspec.structs.replace(one, strength=1.0), family="sd1") for one in (*named, *rest)]
    source = SourcePicture(drawing.source, 64, 64) if drawing.source else None
    mask = SourcePicture(drawing.mask, 64, 64) if drawing.mask else None
    model = facts if drawing.operation is not Operation.UPSCALE else None
    return drawing_of(step, model, known, 99, implied=len(named), source=source, mask=mask)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapters": tuple(msgspec.structs.replace(one, strength=0.4) for one in ADAPTERS)},
        {"model": BASE, "adapters": (ADAPTERS[0], msgspec.structs.replace(ADAPTERS[1], strength=0.8))},
        {"operation": Operation.IMG2IMG, "source": "a" * 64, "strength": 0.3},
        {"operation": Operation.INPAINT, "source": "a" * 64, "mask": "b" * 64, "strength": 0.9},
        {"scheduler": SchedulerSettings(name="dpmpp_2m", spacing="karras")},
        {"scheduler": SchedulerSettings(name="ddim", eta=0.5)},
        {"guidance_scale": 0.0, "guidance_rescale": 0.7, "clip_skip": 2, "format": PictureFormat.WEBP},
        {"negative_prompt": "blurred {x} __list__", "images": (DrawnImage(prompt=r"{a|b} _x_ \ | (c:1.2)", seed=0),)},
    ],
)
def test_the_request_of_a_picture_makes_its_drawing_again(changes: dict[str, object]) -> None:
    drawing = msgspec.structs.replace(PLAIN, **changes)
    # In the batch shape that it was drawn in.
    assert redrawn(drawing) == msgspec.structs.replace(drawing, shape=8)


def test_of_several_pictures_it_is_the_ones_own_and_one_that_was_drawn_alone_is_exact() -> None:
    drawing = msgspec.structs.replace(PLAIN, images=(*PLAIN.images, DrawnImage(prompt="two mugs", seed=6)))
    again = redrawn(drawing, shape=1)
    assert again == msgspec.structs.replace(drawing, images=drawing.images[1:], exact=True)


def test_an_upscale_names_its_source_and_size_alone() -> None:
    drawing = msgspec.structs.replace(
        PLAIN, operation=Operation.UPSCALE, source="c" * 64, images=(DrawnImage(prompt="", seed=0),)
    )
    request = request_of_picture(drawing, 0, shape=1, backend="local")
    assert request == {"operation": "upscale", "backend": "local", "width": 512, "height": 768, "image": "c" * 64}
    steps_of(msgspec.convert(request, WorkflowRequest))


@pytest.mark.parametrize("prompt", ["a mug", "{a|b}", "__list__", "a {b", "x __ y", "{2$$a|b}", "${x}"])
def test_a_prompt_whose_choices_are_made_stays_as_it_is(prompt: str) -> None:
    assert without_choices(literal(prompt, 3), 3) == prompt


def test_a_picture_has_a_graph_where_comfyui_draws_so() -> None:
    graph = graph_of_picture(PLAIN, 0, (64, 64))
    assert graph is not None
    assert graph["sampler"]["inputs"]["seed"] == 5
    assert graph["loader"]["inputs"]["ckpt_name"].startswith("darkroom-")
    assert graph_of_picture(msgspec.structs.replace(PLAIN, scheduler=SchedulerSettings(eta=0.5)), 0, (64, 64)) is None
