"""darkroom train with a YAML file: what it reads, what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.client.yaml_values import read_yaml
from deployments.commands.jobs.training_config import config_file, yaml_value
from storage.blobs.store import BlobStore
from storage.postgres.jobs import base_models
from tests.deployments.line import Line
from tests.storage.makers import a_card
from tests.storage.model_files import stored_model


def written(line: Line, text: str) -> Path:
    file = line.folder / "job.yaml"
    file.write_text(text)
    return file


def recipe_of(line: Line) -> dict[str, Any]:
    recipe = line.jobs()[0].request["recipe"]
    assert isinstance(recipe, dict)
    return recipe


@pytest.mark.parametrize(
    "value", ["mug", "no", "1e-6", "", "a: b", "# x", 'ä "q" \\', 1, 5e-06, 1.0, True, None, ["a", "1"]]
)
def test_a_value_is_read_back_as_it_was_written(value: Any) -> None:
    assert read_yaml(f"a: {yaml_value(value)}", "f").value == {"a": value}


def test_a_file_option_and_setting_make_the_job(line: Line) -> None:
    file = written(line, "classWord: mug\nsteps: 3\nlearningRate: 1e-6\nseed: 5\nsampler:\n  steps: 2\n")
    arguments = ("--config", file, "--seed", 6, "--set", "sampler.guidanceScale=4", "--yes", "--detach")
    result = line("train", line.photos(), *arguments)

    assert result.exit_code == 0, result.output
    recipe = recipe_of(line)
    assert (recipe["steps"], recipe["learning_rate"], recipe["seed"]) == (3, 1e-6, 6)
    assert recipe["sampler"] == {"steps": 2, "guidance_scale": 4.0}


@pytest.mark.parametrize("how", ["--print-config", "--print-full-config"])
def test_what_is_printed_is_accepted_and_makes_the_same_job(line: Line, how: str) -> None:
    first = (
        "--method",
        "lora",
        "--lora-rank",
        4,
        "--seed",
        7,
        "--preset",
        "gpu-16gb",
        "--set",
        "evaluationScenes=[at night]",
    )
    printed = line("train", line.photos(), "mug", *first, how)
    assert printed.exit_code == 0, printed.output
    assert line("train", line.photos(), "mug", *first, "--yes", "--detach").exit_code == 0
    asked = line.jobs()[0].request

    # The one line that says what is left out stands on the error stream.
    text = printed.stdout
    assert line("train", line.photos(), "--config", written(line, text), "--yes", "--detach").exit_code == 0
    again = line.jobs()[0].request
    assert {**again, "data_set_id": ""} == {**asked, "data_set_id": ""}
    assert again["preset"] == "gpu-16gb"
    assert line("train", "--config", line.folder / "job.yaml", how).stdout == text


def test_the_printed_file_explains_every_field(line: Line) -> None:
    text = line("train", "--print-config").stdout
    assert "# Learning rate of the UNet. Unit: rate of one step. Default: the base's, else 5e-06." in text
    assert "\n# classWord: mug\n" in text
    assert "\n# seed: 7\n" in text
    assert "\n# loraRank: 16\n" in text
    assert "sampler:\n  # Denoising steps" in text
    assert "\n# steps: 800\n" in text
    assert read_yaml(text, "f").value == {"sampler": None}
    assert read_yaml(line("train", "--print-full-config").stdout, "f").value["steps"] == 800


def test_a_printed_file_freezes_nothing_that_was_not_asked_for(line: Line) -> None:
    """With the values of one method, identifier or preset set, an option after the file could not have its own."""
    text = line("train", "--preset", "cpu", "--steps", 3, "--print-config").stdout
    assert read_yaml(text, "f").value == {"preset": "cpu", "steps": 3, "sampler": None}
    assert "\n# splitBackward: true\n" in text
    file = written(line, text)
    options = ("--config", file, "--method", "lora", "--preset", "gpu-8gb", "--yes", "--detach")
    result = line("train", line.photos(), "mug", *options)
    assert result.exit_code == 0, result.output
    recipe = recipe_of(line)
    assert (recipe["learning_rate"], recipe["precision"], recipe["steps"]) == (1e-4, "bf16", 3)


def test_the_command_knows_uploaded_photos(line: Line) -> None:
    line("train", line.photos(), "mug", "--yes", "--detach")
    data_set = line.jobs()[0].data_set_id
    result = line("train", "--data-set", data_set, "--set", "classWord=mug", "--yes", "--detach")
    assert result.exit_code == 0, result.output
    assert [job.data_set_id for job in line.jobs()] == [data_set, data_set]


BAD = {
    "classWord: mug\nsteps: 5m\n": "line 2: steps: expected a whole number or nothing, got text (unit: optimizer steps",
    "classWord: mug\nbucketMinSide: 512px\n": "line 2: bucketMinSide: expected a whole number or nothing, got text",
    "resolution: 512px\n": "line 1: resolution: there is no such field; a job has the resolution of its base model",
    "classWord: mug\nduration: 5m\n": "line 2: duration: there is no such field; a job is as long as its steps",
    "classWord: mug\n\nlearning_rate: 1e-6\n": "line 3: learning_rate: there is no such field; did you mean learn",
    "classWord: mug\nrandomFlip: yes\n": "line 2: randomFlip: expected true or false",
    "classWord: mug\nmethod: Lora\n": "line 2: method: invalid enum value 'Lora'; did you mean lora?",
    "classWord: mug\nlearningRate: 5\n": "line 2: learningRate: expected a number <= 1.0 (unit: rate of one step",
    "classWord: mug\nsteps: 1\nsteps: 2\n": "line 3: steps stands here twice; the first is in line 2",
    "classWord: mug\nsampler:\n  stepz: 1\n": "line 3: sampler.stepz: there is no such field; did you mean steps?",
    "classWord: [mug\n": "line 2: this is not YAML",
    "classWord: mug\nkeepEvery: 7\n": "line 2: keepEvery: must be a multiple of checkpointEvery",
    "classWord: mug\npreset: gpu-8gb\nmethod: full\n": "line 2: preset: 'gpu-8gb' has no settings for method full",
    "": "the file is empty. `darkroom train --print-full-config` prints a complete one",
}


@pytest.mark.parametrize("text", BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_bad_file_is_refused_with_its_line_before_anything_is_uploaded(line: Line, text: str) -> None:
    result = line("train", line.photos(), "--config", written(line, text), "--yes")

    assert result.exit_code == 1
    assert BAD[text] in result.output
    assert str(line.folder / "job.yaml") in result.output
    assert "Traceback" not in result.output
    assert line.door.client().get("/api/v1/data-sets").json()["items"] == []


def test_a_file_that_is_not_there_is_named(line: Line) -> None:
    result = line("train", line.photos(), "mug", "--config", line.folder / "none.yaml", "--yes")
    assert result.exit_code == 1
    assert "none.yaml: No such file or directory" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--yes",), "the class word is missing"),
        (("--set", "classWord=mug", "--yes"), "there are no photos: give either PHOTOS or --data-set"),
    ],
)
def test_what_is_missing_is_asked_for(line: Line, arguments: tuple[str, ...], message: str) -> None:
    result = line("train", *arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_the_estimate_says_what_the_job_needs_and_starts_nothing(line: Line) -> None:
    files = stored_model(BlobStore(line.door.settings.blobs), line.folder / "model")
    line.door.database.run(base_models.register("with weights", "7" * 64, a_card(), files))
    result = line("train", "--base", "with weights", "--estimate", "--set", "batchSize=64")

    assert result.exit_code == 0, result.output
    assert "8 steps of full on 'with weights' (sd1)" in result.output
    assert "at its peak, ±15 %; fits cards of 8 GB, 12 GB, 16 GB, 24 GB" in result.output
    assert "trained: 2,176 of 3,416 parameters" in result.output
    assert "splitBackward: true" in result.output
    assert "; checkpoints 93.3 KiB (93.3 KiB each), results " in result.output
    assert "nothing is known of the time" in result.output
    assert line.jobs() == []


def test_without_a_request_every_field_is_a_comment() -> None:
    assert read_yaml(config_file({}), "f").value == {"sampler": None}
