"""Workflows of steps: what fits together, and by which field a fault is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Operation
from storage.records.generation.step_requests import StepRequest, WorkflowRequest
from storage.records.generation.workflows import steps_of, version_named

DRAWN: dict[str, Any] = {"model": 3, "prompt": "a mug"}
HIRES: dict[str, Any] = {
    "workflow": [
        {**DRAWN, "name": "base", "count": 2},
        {"name": "large", "operation": "upscale", "image": {"$ref": "base", "image": 1}, "width": 128, "height": 128},
        {**DRAWN, "operation": "img2img", "image": {"$ref": "large"}, "strength": 0.5},
    ]
}


def read(body: dict[str, Any]) -> WorkflowRequest:
    return msgspec.convert(body, WorkflowRequest)


def faults_of(body: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        steps_of(read(body))
    return refused.value.fields


def test_one_step_needs_no_workflow() -> None:
    [step] = steps_of(read({**DRAWN, "tags": ["a"], "externalId": "order-17", "count": 4}))

    assert (step.name, step.operation, step.model, step.count) == ("0", Operation.TXT2IMG, 3, 4)
    assert type(step) is StepRequest


def test_a_workflow_has_its_steps_in_their_order_each_with_a_name() -> None:
    steps = steps_of(read(HIRES))

    assert [(step.name, step.operation.value) for step in steps] == [
        ("base", "txt2img"),
        ("large", "upscale"),
        ("2", "img2img"),
    ]


def test_what_was_read_is_written_the_same() -> None:
    request = read({**HIRES, "externalId": "x"})

    assert msgspec.json.decode(msgspec.json.encode(request), type=WorkflowRequest) == request


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"prompt": ""}, "prompt", "is needed by txt2img"),
        ({"model": None}, "model", "is needed by txt2img"),
        ({"image": "a" * 64}, "image", "is not for txt2img"),
        ({"strength": 0.5}, "strength", "is not for txt2img"),
        ({"operation": "img2img"}, "image", "is needed by img2img"),
        ({"operation": "img2img", "image": "a" * 64, "mask": "b" * 64}, "mask", "is not for img2img"),
        ({"operation": "inpaint", "image": "a" * 64}, "mask", "is needed by inpaint"),
        ({"operation": "upscale", "image": "a" * 64, "width": 64, "height": 64}, "prompt", "is not for upscale"),
        ({"operation": "img2img", "image": {"$ref": "base"}}, "image", "names no earlier step; there are: none"),
    ],
)
def test_a_fault_of_one_step_is_named_by_its_field(changes: dict[str, Any], field: str, said: str) -> None:
    assert said in faults_of({**DRAWN, **changes})[field]


@pytest.mark.parametrize(
    ("place", "changes", "field", "said"),
    [
        (1, {"image": {"$ref": "2"}}, "workflow[1].image", "'2' is a later step"),
        (1, {"image": {"$ref": "large"}}, "workflow[1].image", "'large' is this very step"),
        (1, {"image": {"$ref": "bse"}}, "workflow[1].image", "names no earlier step; there are: base"),
        (1, {"image": {"$ref": "base", "image": 2}}, "workflow[1].image", "draws 2 pictures, numbered from 0"),
        (2, {"name": "base"}, "workflow[2].name", "the name of an earlier step"),
        (2, {"image": None}, "workflow[2].image", "is needed by img2img"),
    ],
)
def test_a_fault_of_a_workflow_is_named_by_its_place(
    place: int, changes: dict[str, Any], field: str, said: str
) -> None:
    steps = [dict(step) for step in HIRES["workflow"]]
    steps[place] |= changes

    assert said in faults_of({"workflow": steps})[field]


def test_every_fault_is_named_at_once() -> None:
    faults = faults_of({"workflow": [{"prompt": "a"}, {"model": 1}]})

    assert sorted(faults) == ["workflow[0].model", "workflow[1].prompt"]


def test_a_workflow_beside_fields_of_a_step_is_refused_for_each() -> None:
    faults = faults_of({**HIRES, "prompt": "a", "guidanceScale": 3.0})

    assert sorted(faults) == ["guidanceScale", "prompt"]


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 65},
        {"height": 8},
        {"width": 4104},
        {"count": 0},
        {"count": 65},
        {"steps": 151},
        {"seed": 2**32},
        {"seed": -1},
        {"prompt": "x" * 10_001},
        {"adapters": [{"model": 1}] * 13},
        {"adapters": [{"model": 1, "strength": 5.0}]},
        {"externalId": "a b"},
        {"externalId": "a\n"},
        {"tags": ["x"] * 11},
        {"operation": "txt2vid"},
        {"workflow": []},
        {"workflow": [DRAWN] * 17},
        {"unknown": 1},
        {"image": "no hash"},
        {"image": {"$ref": "a", "other": 1}},
    ],
)
def test_values_beyond_their_limits_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read({**DRAWN, **changes})


@pytest.mark.parametrize(
    ("name", "number"),
    [(3, 3), ("urn:air:sd1:checkpoint:civitai:2@3", 3), ("URN:AIR:sdxl:lora:civitai:2@17.safetensors", 17)],
)
def test_a_version_is_named_by_number_or_air(name: int | str, number: int) -> None:
    assert version_named("model", name) == number


@pytest.mark.parametrize("name", ["3", "urn:air:sd1:checkpoint:civitai:2", "urn:air:sd1:checkpoint:civitai:2@0", "x"])
def test_another_name_is_refused_with_what_one_looks_like(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no AIR with a version, such as urn:air") as refused:
        version_named("model", name)
    assert list(refused.value.fields) == ["model"]
