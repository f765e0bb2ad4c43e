"""What a workflow costs and roughly how long it takes, from the pace of steps that were drawn lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from storage.records.generation.drawings import Drawing, Operation
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow
from storage.records.generation.scheduler_names import display_name
from storage.records.generation.workflow_rows import DrawingPace, StepState, WorkflowStep

_ENDED = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED})


class StepPriceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a step would be and cost. An upscale has neither scheduler nor denoising steps."""

    name: Annotated[str, Meta(examples=["base"])]
    credits: Annotated[int, Meta(description="If all of its pictures are drawn.")]
    seconds: Annotated[float | None, Meta(description="Rough time; null before the first pace is known.")]
    pictures: int
    width: Annotated[int, Meta(description="Pixels.")]
    height: Annotated[int, Meta(description="Pixels.")]
    scheduler: Annotated[str | None, Meta(examples=["DPM++ 2M Karras"])]
    steps: int | None


class WorkflowPrice(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a workflow would cost if everything is drawn. Nothing was submitted."""

    credits: int
    seconds: Annotated[
        float | None, Meta(description="Rough time on the device, without those that go before; null as for a step.")
    ]
    pictures: int
    steps: list[StepPriceView]


def price_of(workflow: ResolvedWorkflow, paces: Sequence[DrawingPace]) -> WorkflowPrice:
    """The price of a workflow and of its steps."""
    steps = [_step_price(step, paces) for step in workflow.steps]
    known = [step.seconds for step in steps if step.seconds is not None]
    return WorkflowPrice(
        credits=workflow.price,
        seconds=round(sum(known), 1) if known else None,
        pictures=workflow.pictures,
        steps=steps,
    )


def seconds_per_unit(paces: Iterable[DrawingPace], family: str = "", backend: str = "") -> float | None:
    """The median pace of the backends for a family; of all families where nothing is known of it, None before the first
    step was drawn. backend: the only one that counts, where one is named and known."""
    known = list(paces)
    known = [pace for pace in known if pace.backend == backend] or known
    own = [pace for pace in known if pace.family == family] if family else []
    # The work of a picture that no model draws is of another kind.
    drawn = [pace for pace in known if pace.family]
    found = [pace.seconds_per_unit for pace in own or drawn or known]
    return median(found) if found else None


def seconds_left(
    steps: Sequence[WorkflowStep], drawn: Mapping[str, int], units_ahead: float, paces: Sequence[DrawingPace]
) -> float | None:
    """Rough seconds until a workflow has ended: the work ahead of it, and what of its own pictures is not drawn.

    drawn: pictures that are stored, by step. None before the first pace is known.
    """
    of_all = seconds_per_unit(paces)
    if of_all is None:
        return None
    left = units_ahead * of_all
    for step in steps:
        pictures = 0 if step.state in _ENDED else max(0, step.pictures - drawn.get(step.name, 0))
        left += step.picture_units * pictures * (seconds_per_unit(paces, step.family, step.backend or "") or of_all)
    return round(left, 1)


def scheduler_shown(drawing: Drawing) -> str | None:
    """The scheduler of a drawing as A1111 calls it; None where no model draws."""
    return None if drawing.operation is Operation.UPSCALE else display_name(drawing.scheduler)


def _step_price(step: ResolvedStep, paces: Sequence[DrawingPace]) -> StepPriceView:
    drawing = step.drawing
    pace = seconds_per_unit(paces, drawing.model.family, step.backend)
    return StepPriceView(
        name=step.name,
        credits=step.picture_price * step.pictures,
        seconds=None if pace is None else round(step.picture_units * step.pictures * pace, 1),
        pictures=step.pictures,
        width=drawing.width,
        height=drawing.height,
        scheduler=scheduler_shown(drawing),
        steps=None if drawing.operation is Operation.UPSCALE else drawing.steps,
    )
