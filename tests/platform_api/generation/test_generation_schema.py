"""The document of a generation request says what the request's own types check."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from platform_api.generation.generation_schema import EXAMPLES, describe_generation_fields
from storage.records.generation.step_requests import GenerationChanges, WorkflowRequest
from storage.records.generation.workflows import steps_of
from storage.request_faults import field_faults


def test_limits_units_and_texts_of_every_field_are_in_the_document() -> None:
    schemas: dict[str, Any] = {}
    describe_generation_fields(schemas)
    fields = schemas["WorkflowRequest"]["properties"]
    assert set(fields) == set(WorkflowRequest.__struct_encode_fields__)
    assert (fields["steps"]["x-unit"], fields["width"]["x-unit"]) == ("steps", "pixels")
    seed, _nothing = fields["seed"]["anyOf"]
    assert (seed["minimum"], seed["maximum"]) == (0, 2**32 - 1)
    number, air, _nothing = fields["model"]["anyOf"]
    assert (number["minimum"], "AIR" in air["description"]) == (1, True)
    assert schemas["WorkflowRequest"]["additionalProperties"] is False
    assert "\\Z" not in msgspec.json.encode(schemas).decode()
    assert schemas["AdapterRequest"]["properties"]["strength"]["minimum"] == -4.0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (WorkflowRequest, {"prompt": "CHARACTER"}),
        (WorkflowRequest, {"tags": ["CHARACTER"]}),
        (WorkflowRequest, {"model": "CHARACTER"}),
        (WorkflowRequest, {"scheduler": "CHARACTER"}),
        (WorkflowRequest, {"wildcards": {"CHARACTER": ["a"]}}),
        (WorkflowRequest, {"wildcards": {"a": ["CHARACTER"]}}),
        (WorkflowRequest, {"adapters": [{"model": "CHARACTER"}]}),
        (WorkflowRequest, {"workflow": [{"negativePrompt": "CHARACTER"}]}),
        (WorkflowRequest, {"image": {"$ref": "CHARACTER"}}),
        (GenerationChanges, {"tags": ["CHARACTER"]}),
        (GenerationChanges, {"metadata": {"a": [{"b": "CHARACTER"}]}}),
        (GenerationChanges, {"metadata": {"a": {"CHARACTER": 1}}}),
        (GenerationChanges, {"metadata": {"CHARACTER": 1}}),
    ],
)
def test_the_document_says_which_characters_a_text_may_not_hold(
    kind: type[msgspec.Struct], body: dict[str, Any]
) -> None:
    schemas: dict[str, Any] = {}
    describe_generation_fields(schemas)
    document = {**schemas[kind.__name__], "components": {"schemas": schemas}}
    says = Draft202012Validator(document)
    for character in ("é", "\n", "\x00", "\x7f"):
        meant = json.loads(json.dumps(body).replace("CHARACTER", json.dumps(f"a{character}b")[1:-1]))
        assert says.is_valid(meant) is not bool(field_faults(meant, kind)), (character, meant)


def test_its_examples_pass() -> None:
    for example in EXAMPLES:
        assert field_faults(example, WorkflowRequest) == {}
        assert steps_of(msgspec.convert(example, WorkflowRequest))
