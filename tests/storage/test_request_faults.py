"""Every wrong field of a request is named at once, with its unit, an example and the name that was meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.training import TrainingRequest
from storage.request_faults import (
    depth_faults,
    field_faults,
    has_control_characters,
    is_nested_deeper,
    nearest_name,
    unknown_name,
)

WHOLE = {"classWord": "mug", "dataSetId": "6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", 1, "there is no such field; did you mean learningRate?"),
        ("Steps", 1, "did you mean steps?"),
        ("resolution", "512px", "a job has the resolution of its base model"),
        ("network_dim", 8, "it is loraRank here"),
        ("max_train_epochs", 8, "a job counts steps"),
        ("use_8bit_adam", True, "it is optimizer: adamw_8bit here"),
        ("train_text_encoder", True, "it is textEncoderLearningRate here"),
        ("report_to", "wandb", "DARKROOM_TRACKING__TRACKERS"),
        ("clip_skip", 2, "no layer can be left out"),
        ("network_module", "networks.lora", "it is method: lora here"),
        ("instance_data_dir", "a", "photos are the first argument"),
        ("output_dir", "a", "`darkroom download` writes it"),
        ("cache_latents", True, "latents are always cached"),
        ("steps", "5m", "expected a whole number or nothing, got text (unit: optimizer steps; write the number alone"),
        ("learningRate", "1e-6s", "unit: rate of one step; write the number alone, for example 5e-06"),
        ("bucketMinSide", "512px", "unit: pixels; write the number alone, for example 256"),
        ("steps", 0, "expected a whole number >= 1 (unit: optimizer steps, for example 800)"),
        ("bucketStep", 65, "multiple of 8 (unit: pixels"),
        ("randomFlip", "yes", "expected true or false"),
        ("preset", "gpu12", "did you mean gpu-12gb? known are: cpu, "),
        ("exportDtype", "fp8", "known are: base, fp32, fp16, bf16"),
        ("method", 3, "known are: full, lora"),
        ("evaluationScenes", "beach", 'expected a list or nothing, got text (for example ["on the beach"'),
        ("sampler", 3, "expected named fields"),
        ("name", "a\x00b", "must not hold control characters"),
    ],
)
def test_a_wrong_field_says_what_to_write(name: str, value: Any, words: str) -> None:
    faults = field_faults({**WHOLE, name: value}, TrainingRequest)
    assert list(faults) == [name]
    assert words in faults[name]


def test_fields_inside_another_are_named_with_a_dot() -> None:
    faults = field_faults({**WHOLE, "sampler": {"step": 3, "guidanceScale": "7.5x"}}, TrainingRequest)
    assert faults["sampler.step"] == "there is no such field; did you mean steps? there are: steps, guidanceScale"
    assert "unit: factor; write the number alone, for example 7.5" in faults["sampler.guidanceScale"]


def test_records_of_a_list_are_named_by_their_place() -> None:
    first, second = {"prompt": "a mug,\nin the snow", "stepz": 3}, {"adapters": [{"model": 3, "strength": 9}]}
    faults = field_faults({"workflow": [first, second]}, WorkflowRequest)
    assert set(faults) == {"workflow[0].stepz", "workflow[1].adapters[0].strength"}
    assert "did you mean steps?" in faults["workflow[0].stepz"]
    assert field_faults({"workflow": [{"prompt": "a\nb"}] * 17}, WorkflowRequest).keys() == {"workflow"}
    assert field_faults({"workflow": [{"prompt": "a\nb"}]}, WorkflowRequest) == {}
    assert (
        "control characters" in field_faults({"workflow": [{"prompt": "a\x00"}]}, WorkflowRequest)["workflow[0].prompt"]
    )
    assert field_faults({"modelVersionId": 3}, WorkflowRequest)["modelVersionId"].count("`model`") == 1


def test_all_faults_come_at_once_and_a_missing_field_is_one() -> None:
    faults = field_faults({"steps": "x", "seed": -1, "stepz": 2}, TrainingRequest)
    assert set(faults) == {"classWord", "dataSetId", "steps", "seed", "stepz"}
    assert faults["classWord"] == "is required"


def test_a_request_that_passes_has_no_fault() -> None:
    given = {**WHOLE, "learningRate": 1, "sampler": {"steps": 3}, "evaluationScenes": ["on the beach"], "seed": None}
    assert field_faults(given, TrainingRequest) == {}


def test_few_names_are_listed_many_are_not() -> None:
    assert unknown_name("x", ["a", "b"]) == "there is no such field; there are: a, b"
    many = [f"field{number}" for number in range(40)]
    reason = unknown_name("zzz", ["steps", "seed", *many])
    assert reason.startswith("there is no such field; of 42 fields the most alike are: ")
    assert len(reason) < 120
    assert nearest_name("guidanceScale", ["steps", "sampler.guidanceScale"]) == "sampler.guidanceScale"
    assert nearest_name("zzzz", ["steps"]) is None


def test_thousands_of_unknown_names_take_no_time() -> None:
    faults = field_faults({f"name{number}": 1 for number in range(5_000)} | WHOLE, TrainingRequest)
    assert len(faults) == 5_000


@pytest.mark.parametrize("wrap", [lambda value: [1, value], lambda value: {"a": value}])
def test_32_lists_and_objects_inside_each_other_are_the_most(wrap: Callable[[Any], Any]) -> None:
    deep: Any = 1
    for _ in range(32):
        deep = wrap(deep)
    assert depth_faults({"metadata": deep}) == {}
    assert list(depth_faults({"metadata": wrap(deep), "tags": []})) == ["metadata"]


@pytest.mark.parametrize(
    ("text", "plain", "in_lines"),
    [
        ("a mug \u00e9 \U0001f375", False, False),
        ("no\u00a0break\u2028", False, False),
        ("a\nb\tc\r", True, False),
        ("a\x00", True, True),
        ("a\n\x1f", True, True),
        ("\x7f", True, True),
        ("\ud800", True, True),
        ("", False, False),
    ],
)
def test_control_characters(text: str, plain: bool, in_lines: bool) -> None:
    assert has_control_characters(text) is plain
    assert has_control_characters(text, lines=True) is in_lines


@pytest.mark.parametrize(("content", "deeper"), [(1, False), ([], False), ({"a": [1]}, False), ({"a": [[]]}, True)])
def test_depth(content: Any, deeper: bool) -> None:
    assert is_nested_deeper(content, 2) is deeper
