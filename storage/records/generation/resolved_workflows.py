"""A workflow with nothing left open but the pictures that its own steps will draw: what `jobs.request` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing
from storage.records.generation.prices import Priority
from storage.records.generation.step_fields import StepOutput
from storage.records.jobs.sampled_sets import fingerprint


class ResolvedStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step to draw. `image` and `mask` are pictures of earlier steps, which the drawing names once they are there.

    `backend`: the only one that may draw it; empty: whichever can. `picture_price` (credits) and `picture_units` are of
    each of its pictures.
    """

    name: str
    drawing: Drawing
    image: StepOutput | None = None
    mask: StepOutput | None = None
    backend: str = ""
    picture_price: int = 0
    picture_units: float = 0.0

    @property
    def pictures(self) -> int:
        """How many it draws."""
        return len(self.drawing.images)


class ResolvedWorkflow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The steps in their order. `asked` is the request as it came, for people and for a picture's metadata."""

    asked: dict[str, Any]
    steps: tuple[ResolvedStep, ...]
    priority: Priority = Priority.NORMAL

    @property
    def pictures(self) -> int:
        """How many all steps draw."""
        return sum(step.pictures for step in self.steps)

    @property
    def price(self) -> int:
        """Credits, if everything is drawn."""
        return sum(step.picture_price * step.pictures for step in self.steps)

    @property
    def units(self) -> float:
        """The work of everything."""
        return sum(step.picture_units * step.pictures for step in self.steps)

    def fingerprint(self) -> str:
        """SHA-256 of what is drawn, as canonical JSON."""
        return fingerprint(msgspec.structs.replace(self, asked={}, priority=Priority.NORMAL))


_DRAWING = {field.name: field for field in msgspec.structs.fields(Drawing)}


def is_workflow(request: Mapping[str, Any]) -> bool:
    """Whether a generation job's request is a workflow; those of before there were any name one model and prompt."""
    return "steps" in request and "asked" in request


def stored(workflow: ResolvedWorkflow) -> dict[str, Any]:
    """A workflow as plain JSON. What is at its default is left out, so that another release need not know it."""
    plain = cast(dict[str, Any], msgspec.to_builtins(workflow))
    for step in plain["steps"]:
        step["drawing"] = {name: value for name, value in step["drawing"].items() if not _is_default(name, value)}
    return plain


def read_workflow(request: Mapping[str, Any]) -> ResolvedWorkflow:
    """A workflow from plain JSON. Raises InvalidRequest for what this release does not know."""
    unknown = _unknown(ResolvedWorkflow, request)
    for step in cast(list[dict[str, Any]], request["steps"]):
        unknown |= _unknown(ResolvedStep, step) | _unknown(Drawing, cast(dict[str, Any], step["drawing"]))
    if unknown:
        names = ", ".join(f"'{name}'" for name in sorted(unknown))
        raise InvalidRequest({"request": f"this release knows no option {names}, which the job asks for."})
    try:
        return msgspec.convert(request, ResolvedWorkflow)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"request": f"is none that this release can read: {error}"}) from error


def _is_default(name: str, value: object) -> bool:
    field = _DRAWING[name]
    return not field.required and msgspec.to_builtins(field.default) == value


def _unknown(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> set[str]:
    return set(values) - {field.encode_name for field in msgspec.structs.fields(kind)}
