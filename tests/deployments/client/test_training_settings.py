"""A file, options and --set are laid over each other; what does not pass is named with its place."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.client.training_settings import InvalidTraining, TrainingInput
from storage.errors import Refused


def said(text: str, folder: Path, **options: object) -> TrainingInput:
    file = folder / "job.yaml"
    file.write_text(text)
    found = TrainingInput()
    found.read_file(str(file))
    found.add_options(options)
    return found


def test_options_win_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    found = said("classWord: mug\nsteps: 1\nseed: 1\nloraRank: 4\n", tmp_path, steps=2, loraRank=5)
    found.apply_settings(["steps=3"])
    assert found.request() == {"classWord": "mug", "steps": 3, "seed": 1, "loraRank": 5}


def test_fields_inside_others_are_laid_over_one_by_one(tmp_path: Path) -> None:
    found = said("sampler:\n  steps: 20\n  guidanceScale: 5\n", tmp_path, sampler={"steps": 30})
    found.apply_settings(
        ["sampler.guidanceScale=7.5", "evaluationScenes=[on the beach, at sea]", "evaluationScenes.1=at night"]
    )
    assert found.request() == {
        "sampler": {"steps": 30, "guidanceScale": 7.5},
        "evaluationScenes": ["on the beach", "at night"],
    }


def test_null_takes_a_value_back(tmp_path: Path) -> None:
    found = said("steps: 1\nsampler: {steps: 3}\n", tmp_path)
    found.apply_settings(["steps=null", "sampler.steps=null"])
    assert found.request() == {"sampler": {}}


def test_every_fault_is_named_with_its_place(tmp_path: Path) -> None:
    found = said(
        "classWord: mug\nlearningrate: 1\nsteps: 5m\nsampler:\n  steps: 3x\nguidanceScale: 3\n", tmp_path, seed=-1
    )
    with pytest.raises(InvalidTraining) as refused:
        found.request()
    file = tmp_path / "job.yaml"
    lines = str(refused.value).splitlines()
    assert f"{file}, line 2: learningrate: there is no such field; did you mean learningRate?" in lines
    assert any(line.startswith(f"{file}, line 3: steps: expected a whole number") for line in lines)
    assert any(line.startswith(f"{file}, line 5: sampler.steps: expected a whole number") for line in lines)
    assert f"{file}, line 6: guidanceScale: there is no such field; did you mean sampler.guidanceScale?" in lines
    assert any(line.startswith("the command line: seed: ") for line in lines)
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rate=1", "--set learning_rate: there is no such field; did you mean learningRate?"),
        ("guidanceScale=1", "did you mean sampler.guidanceScale?"),
        ("sampler.stepz=1", "did you mean steps? there are: steps, guidanceScale"),
        ("steps.x=1", "steps has nothing inside it that could be set; set it as a whole: --set steps=VALUE"),
        ("steps", "expected PATH=VALUE, such as steps=800"),
        ("=1", "expected PATH=VALUE"),
        ("evaluationScenes.0=x", "evaluationScenes has nothing inside it"),
        ("steps=[1", "--set steps, line 1: this is not YAML"),
        ("resolution=512", "a job has the resolution of its base model"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_nearest_path(setting: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        TrainingInput().apply_settings([setting])
    assert message in str(refused.value)


def test_a_place_behind_the_end_of_a_list_is_refused() -> None:
    found = TrainingInput()
    with pytest.raises(InvalidTraining, match="the list has 1 values, counted from 0; 1 would be the next one"):
        found.apply_settings(["evaluationScenes=[a]", "evaluationScenes.3=b"])


def test_a_value_of_the_wrong_type_names_the_setting() -> None:
    found = TrainingInput()
    found.apply_settings(["steps=512px"])
    with pytest.raises(InvalidTraining, match=r"^--set steps: steps: expected a whole number"):
        found.request()


def test_the_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"steps: 7\nseed: x")))
    found = TrainingInput()
    found.read_file("-")
    with pytest.raises(InvalidTraining, match=r"^standard input, line 2: seed: "):
        found.request()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the file is empty"), ("- 1\n", "expected lines of"), ("x" * 70_000, "more than 65,536 bytes")],
)
def test_a_file_that_is_none_says_what_one_is(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidTraining, match=message):
        said(text, tmp_path)
