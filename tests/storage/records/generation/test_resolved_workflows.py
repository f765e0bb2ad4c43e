"""A resolved workflow is stored and read back; what another release asks for is refused by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.prices import PriceList, Priority
from storage.records.generation.resolved_workflows import (
    ResolvedStep,
    ResolvedWorkflow,
    is_workflow,
    read_workflow,
    stored,
)
from storage.records.generation.schedulers import SchedulerSettings
from storage.records.generation.step_fields import StepOutput

MODEL = DrawnModel(version_id=3, family="sd1", files={"unet/model.safetensors": "ab" * 32}, name="mug")
BASE = Drawing(
    model=MODEL,
    adapters=(DrawnAdapter(version_id=7, sha256="cd" * 32, strength=0.8),),
    images=(DrawnImage(prompt="a mug", seed=1), DrawnImage(prompt="a mug", seed=2)),
    scheduler=SchedulerSettings(name="dpmpp_2m", spacing="karras"),
    width=512,
    height=512,
    strength=1.0,
)
LARGE = msgspec.structs.replace(BASE, operation=Operation.IMG2IMG, adapters=(), mask="ef" * 32, strength=0.5)
WORKFLOW = ResolvedWorkflow(
    asked={"workflow": [{"prompt": "a mug", "unknown to this release": 1}]},
    steps=(
        ResolvedStep(name="base", drawing=BASE),
        ResolvedStep(name="1", drawing=LARGE, image=StepOutput(step="base", image=1), backend="local"),
    ),
    priority=Priority.HIGH,
)


def plain() -> dict[str, Any]:
    return json.loads(json.dumps(stored(WORKFLOW)))


def test_it_is_read_back_as_it_was_stored() -> None:
    assert read_workflow(plain()) == WORKFLOW
    assert is_workflow(plain())
    assert not is_workflow({"model_version_id": 3, "prompt": "a mug"})


def test_what_is_at_its_default_is_not_stored() -> None:
    step = plain()["steps"][0]
    assert step.keys() == {"name", "drawing"}
    assert step["drawing"].keys() == {"model", "adapters", "images", "scheduler", "width", "height", "strength"}
    assert step["drawing"]["scheduler"] == {"name": "dpmpp_2m", "spacing": "karras"}


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("steps", 0),
        ("steps", 1, "drawing"),
        ("steps", 0, "drawing", "model"),
        ("steps", 0, "drawing", "adapters", 0),
        ("steps", 0, "drawing", "images", 1),
        ("steps", 0, "drawing", "scheduler"),
    ],
)
def test_an_option_of_another_release_is_refused_wherever_it_stands(place: tuple[Any, ...]) -> None:
    request = held = plain()
    for key in place:
        held = held[key]
    held["tiling"] = True
    with pytest.raises(InvalidRequest, match="this release knows no option 'tiling'"):
        read_workflow(request)


@pytest.mark.parametrize(
    ("name", "value"), [("operation", "video"), ("width", "wide"), ("images", None), ("format", "avif")]
)
def test_a_value_of_another_release_is_refused(name: str, value: object) -> None:
    request = plain()
    request["steps"][0]["drawing"][name] = value
    with pytest.raises(InvalidRequest, match=f"is none that this release can read.*{name}"):
        read_workflow(request)


def test_its_price_is_that_of_its_pictures() -> None:
    priced = WORKFLOW.priced(PriceList(credits=2.0))
    # 25 calls at 512 x 512 are a unit; half of them 12. High priority costs half as much again.
    assert [(step.pictures, step.picture_price) for step in priced.steps] == [(2, 3), (2, 2)]
    assert (priced.pictures, priced.price, priced.units) == (4, 10, pytest.approx(2 * 1.0 + 2 * 12 / 25))


def test_its_fingerprint_is_of_what_is_drawn_alone() -> None:
    same = msgspec.structs.replace(WORKFLOW.priced(PriceList()), asked={}, priority=Priority.LOW)
    assert same.fingerprint() == WORKFLOW.fingerprint()
    for drawing in (msgspec.structs.replace(BASE, steps=26), msgspec.structs.replace(BASE, exact=True)):
        steps = (msgspec.structs.replace(WORKFLOW.steps[0], drawing=drawing), WORKFLOW.steps[1])
        assert msgspec.structs.replace(WORKFLOW, steps=steps).fingerprint() != WORKFLOW.fingerprint()


def test_it_names_the_stored_pictures_that_it_goes_on_from_once() -> None:
    again = msgspec.structs.replace(WORKFLOW.steps[1], name="2")
    assert msgspec.structs.replace(WORKFLOW, steps=(*WORKFLOW.steps, again)).sources == ("ef" * 32,)
