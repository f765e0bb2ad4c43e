"""What a worker has to know to carry out a job as it was asked for.

API and workers are upgraded one after the other, so a job may name an option that its worker's release does not have.
Ignored, the option would be lost without a word. So a request says which options it uses: a worker refuses those that
it does not know, and passes over new ones that are as they would be without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storage.errors import InvalidRequest
from storage.records.jobs.training import TrainingJobRequest, TrainingRecipe

_OF_MACHINES = frozenset({"threads", "libraries", "device"})


def with_needs(request: Mapping[str, Any]) -> dict[str, Any]:
    """A training job's request, as plain JSON, with `needs`: its recipe's fields that are not at their default."""
    recipe = cast(Mapping[str, Any], request["recipe"])
    needed = {
        field.name
        for field in msgspec.structs.fields(TrainingRecipe)
        if field.name in recipe and not field.required and field.name not in _OF_MACHINES
        # A default is no plain JSON where it is a tuple or an enum, so both are compared as JSON has them.
        if msgspec.to_builtins(field.default) != recipe[field.name]
    }
    return {**request, "needs": sorted(needed)}


def refuse_unknown(request: Mapping[str, Any]) -> None:
    """Refuse a training's request, as plain JSON, that needs a field which this release does not know.

    Raises InvalidRequest naming the fields.
    """
    recipe = cast(Mapping[str, Any], request.get("recipe", {}))
    unknown = _unknown(TrainingRecipe, recipe)
    needed = cast("list[str] | None", request.get("needs"))
    if needed is not None:
        unknown &= set(needed)
    unknown |= _unknown(TrainingJobRequest, request) if needed is None else set()
    if unknown:
        names = ", ".join(f"'{name}'" for name in sorted(unknown))
        raise InvalidRequest({"request": f"this release knows no option {names}, which the job asks for."})


def training_request(request: Mapping[str, Any]) -> TrainingJobRequest:
    """A training job's request from plain JSON. Raises InvalidRequest for what this release does not know, and
    msgspec.ValidationError."""
    refuse_unknown(request)
    return msgspec.convert(request, TrainingJobRequest)


def _unknown(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> set[str]:
    return values.keys() - {field.encode_name for field in msgspec.structs.fields(kind)}
