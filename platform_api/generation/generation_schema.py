"""The OpenAPI document's fields of a generation request, with limits, units and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, cast, get_args

import msgspec

from storage.records.generation.step_fields import AdapterRequest, StepOutput
from storage.records.generation.step_requests import StepRequest, WorkflowRequest

BODIES = (WorkflowRequest, StepRequest, AdapterRequest, StepOutput)
EXAMPLES: tuple[dict[str, Any], ...] = (
    {
        "model": 3,
        "adapters": [{"model": 7, "strength": 0.8}],
        "prompt": "a photo of a sks mug in the snow",
        "scheduler": "DPM++ 2M Karras",
        "width": 768,
        "height": 512,
        "count": 4,
    },
    {
        "workflow": [
            {"name": "small", "model": 3, "prompt": "a photo of a sks mug", "width": 512, "height": 512},
            {"name": "wide", "model": 3, "prompt": "a photo of a sks mug", "width": 768, "height": 512},
        ],
        "externalId": "order-17",
    },
)
"""One step, and a workflow of two. None goes on from another: tools take a `$ref` in an example for one of OpenAPI."""


def describe_generation_fields(schemas: dict[str, Any]) -> None:
    """Write the requests' schemas as msgspec itself checks them; `x-unit` has the unit alone.

    The framework's own leave out limits of 0, and everything that is said of a part of a union.
    """
    _, components = msgspec.json.schema_components(BODIES, ref_template="#/components/schemas/{name}")
    for body in BODIES:
        schema = cast(dict[str, Any], _ecma(components[body.__name__]))
        schema["description"] = cleandoc(schema["description"])
        for field in msgspec.structs.fields(body):
            if unit := next(_units(field.type), ""):
                schema["properties"][field.encode_name]["x-unit"] = unit
        schemas[body.__name__] = schema
    for name, schema in components.items():
        schemas.setdefault(name, schema)
    schemas[WorkflowRequest.__name__]["examples"] = list(EXAMPLES)


def _ecma(value: Any) -> Any:
    """A schema whose patterns are of ECMA 262, which has no `\\Z`."""
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        return {
            name: re.sub(r"\\Z$", "$", member) if name == "pattern" and isinstance(member, str) else _ecma(member)
            for name, member in members.items()
        }
    if isinstance(value, list | tuple):
        return [_ecma(member) for member in cast(list[Any], value)]
    return value


def _units(kind: Any) -> Iterator[str]:
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            if part.extra and "unit" in part.extra:
                yield str(part.extra["unit"])
        else:
            yield from _units(part)
