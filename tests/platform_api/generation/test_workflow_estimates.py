"""Rough times, from the paces that are known."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from platform_api.generation.workflow_estimates import price_of, seconds_left, seconds_per_unit
from storage.records.generation.drawings import NO_MODEL, Drawing, DrawnImage, DrawnModel, Operation
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow
from storage.records.generation.workflow_rows import DrawingPace, StepState, WorkflowStep

PACES = [
    DrawingPace(family="sd1", backend="comfyui", seconds_per_unit=4.0),
    DrawingPace(family="sd1", backend="local", seconds_per_unit=2.0),
    DrawingPace(family="sdxl", backend="local", seconds_per_unit=9.0),
    DrawingPace(family="", backend="local", seconds_per_unit=100.0),
]


def step(name: str, state: StepState = StepState.WAITING, family: str = "sd1", pictures: int = 4) -> WorkflowStep:
    ended = datetime.now(UTC) if state is StepState.SUCCEEDED else None
    return WorkflowStep(
        job_id=UUID(int=1),
        position=0,
        name=name,
        operation="txt2img",
        family=family,
        state=state,
        pictures=pictures,
        picture_price=1,
        picture_units=1.0,
        backend=None,
        tries=0,
        seconds=0.0,
        started_at=None,
        ended_at=ended,
        failure_code=None,
        failure_reason=None,
        metadata={},
    )


@pytest.mark.parametrize(
    ("family", "backend", "seconds"),
    [("sd1", "", 3.0), ("sd1", "local", 2.0), ("sdxl", "", 9.0), ("new", "", 4.0), ("", "", 4.0), ("sd1", "new", 3.0)],
)
def test_the_pace_is_the_familys_median_or_that_of_all_that_models_draw(
    family: str, backend: str, seconds: float
) -> None:
    assert seconds_per_unit(PACES, family, backend) == seconds


def test_before_the_first_nothing_is_known() -> None:
    assert seconds_per_unit([], "sd1") is None
    assert seconds_left([step("base")], {}, 10.0, []) is None


def test_what_is_left_is_the_work_ahead_and_the_pictures_that_are_missing() -> None:
    steps = [step("done", StepState.SUCCEEDED), step("base", StepState.RUNNING), step("later", family="sdxl")]
    assert seconds_left(steps, {"done": 4, "base": 3}, 5.0, PACES) == 5 * 4 + 1 * 3 + 4 * 9


def test_a_price_has_no_scheduler_for_what_no_model_draws() -> None:
    image = DrawnImage(prompt="a mug", seed=1)
    model = DrawnModel(version_id=3, family="sd1", files={})
    base = Drawing(model=model, images=(image,), width=512, height=512)
    large = Drawing(model=NO_MODEL, images=(image,), operation=Operation.UPSCALE, width=1024, height=1024)
    workflow = ResolvedWorkflow(
        asked={},
        steps=(
            ResolvedStep(name="base", drawing=base, picture_price=2, picture_units=2.0),
            ResolvedStep(name="large", drawing=large, picture_price=1, picture_units=0.2),
        ),
    )

    price = price_of(workflow, PACES)

    assert (price.credits, price.pictures, price.seconds) == (3, 2, 2 * 3 + 0.8)
    assert [(one.scheduler, one.steps) for one in price.steps] == [("DDIM", 25), (None, None)]
    assert price_of(workflow, []).seconds is None
