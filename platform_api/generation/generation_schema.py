"""The OpenAPI document's fields of a generation request, with limits, units and examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any, cast

import msgspec

from platform_api.http.query_parameters import PLAIN_TEXT
from storage.records.generation.step_fields import AdapterRequest, StepOutput
from storage.records.generation.step_requests import GenerationChanges, StepRequest, WorkflowRequest
from storage.request_faults import metas_of

BODIES = (WorkflowRequest, StepRequest, AdapterRequest, StepOutput, GenerationChanges)
LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""A text that may have tabs and ends of lines."""
ANY_VALUE = "JsonValue"
"""The component that is any value of JSON whose texts have no control characters."""
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
            of_field = schema["properties"][field.encode_name]
            metas = list(metas_of(field.type))
            if unit := next((str(meta.extra["unit"]) for meta in metas if meta.extra and "unit" in meta.extra), ""):
                of_field["x-unit"] = unit
            _refuse_control_characters(of_field, lines=any((meta.extra or {}).get("lines") for meta in metas))
        schemas[body.__name__] = schema
    for name, schema in components.items():
        schemas.setdefault(name, schema)
    schemas[ANY_VALUE] = _any_value()
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


def _refuse_control_characters(schema: dict[str, Any], *, lines: bool) -> None:
    """Say of every text in a field's schema, also of names that are the caller's own, what no body may hold."""
    pattern = LINES if lines else PLAIN_TEXT
    if schema.get("type") == "string" and not schema.keys() & {"pattern", "enum", "format"}:
        schema["pattern"] = pattern
    if schema.get("type") == "object":
        schema["propertyNames"] = {"pattern": pattern}
        if not isinstance(schema.get("additionalProperties"), Mapping):
            schema["additionalProperties"] = {"$ref": f"#/components/schemas/{ANY_VALUE}"}
    inside = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())]
    for part in inside:
        if isinstance(part, dict):
            _refuse_control_characters(cast(dict[str, Any], part), lines=lines)


def _any_value() -> dict[str, Any]:
    itself = {"$ref": f"#/components/schemas/{ANY_VALUE}"}
    return {
        "description": "Any value, whose texts and names have no control characters but tabs and ends of lines.",
        "anyOf": [
            {"type": ["null", "boolean", "number"]},
            {"type": "string", "pattern": LINES},
            {"type": "array", "items": itself},
            {"type": "object", "propertyNames": {"pattern": LINES}, "additionalProperties": itself},
        ],
    }
