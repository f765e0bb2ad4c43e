"""A workflow with nothing left open but the pictures that its own steps will draw: what `jobs.request` holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing
from storage.records.generation.prices import PriceList, Priority, picture_price, picture_units
from storage.records.generation.step_fields import StepOutput


class ResolvedStep(msgspec.Struct, frozen=True, kw_only=True):
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


class ResolvedWorkflow(msgspec.Struct, frozen=True, kw_only=True):
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

    @property
    def sources(self) -> tuple[str, ...]:
        """SHA-256 of the stored pictures that its steps go on from, each once."""
        named = (one for step in self.steps for one in (step.drawing.source, step.drawing.mask))
        return tuple(dict.fromkeys(one for one in named if one))

    @property
    def versions(self) -> tuple[int, ...]:
        """Model versions that its steps draw with, adapters too, each once."""
        named = (one.version_id for step in self.steps for one in (step.drawing.model, *step.drawing.adapters))
        # 0: what no version is, such as the base of an adapter.
        return tuple(dict.fromkeys(one for one in named if one))

    def priced(self, prices: PriceList) -> ResolvedWorkflow:
        """The same at the prices of a list."""
        steps = tuple(
            msgspec.structs.replace(
                step,
                picture_price=picture_price(step.drawing, self.priority, prices),
                picture_units=picture_units(step.drawing),
            )
            for step in self.steps
        )
        return msgspec.structs.replace(self, steps=steps)

    def fingerprint(self) -> str:
        """SHA-256 of what is drawn, whatever it costs, as canonical JSON."""
        drawn = [msgspec.structs.replace(step, backend="", picture_price=0, picture_units=0.0) for step in self.steps]
        return hashlib.sha256(msgspec.json.encode([_plain(step) for step in drawn], order="sorted")).hexdigest()


def is_workflow(request: Mapping[str, Any]) -> bool:
    """Whether a generation job's request is a workflow; those of before there were any name one model and prompt."""
    return "steps" in request and "asked" in request


def stored(workflow: ResolvedWorkflow) -> dict[str, Any]:
    """A workflow as plain JSON. What is at its default is left out, so that another release need not know it."""
    return cast(dict[str, Any], _plain(workflow))


def read_workflow(request: Mapping[str, Any]) -> ResolvedWorkflow:
    """A workflow from plain JSON. Raises InvalidRequest for what this release does not know."""
    try:
        workflow = msgspec.convert(request, ResolvedWorkflow)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"request": f"is none that this release can read: {error}"}) from error
    unknown = _unknown(workflow, request)
    if unknown:
        names = ", ".join(f"'{name}'" for name in sorted(unknown))
        raise InvalidRequest({"request": f"this release knows no option {names}, which the job asks for."})
    return workflow


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        held = {field.encode_name: (getattr(value, field.name), field) for field in msgspec.structs.fields(value)}
        return {name: _plain(one) for name, (one, field) in held.items() if one != field.default}
    if isinstance(value, tuple):
        return [_plain(one) for one in cast(tuple[object, ...], value)]
    return msgspec.to_builtins(value)


def _unknown(made: object, plain: Any) -> set[str]:
    """Names in the plain JSON that no field has of what was made from it, however deep."""
    if isinstance(made, msgspec.Struct):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(made)}
        deeper = (_unknown(getattr(made, fields[name]), plain[name]) for name in plain if name in fields)
        return (set(plain) - set(fields)).union(*deeper)
    if isinstance(made, tuple):
        pairs = zip(cast(tuple[object, ...], made), plain, strict=True)
        return set[str]().union(*(_unknown(one, other) for one, other in pairs))
    return set()
