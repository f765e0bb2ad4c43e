"""darkroom train."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from deployments.client.responses import TimeResponse, TrainingEstimateResponse
from deployments.commands.jobs.train import take_identifier
from deployments.commands.jobs.training_estimate import estimate_lines, in_words, short_lines
from tests.deployments.line import Line
from tests.files import image_size
from tests.platform_api.door import photo


def test_photos_become_a_model_with_figures_and_a_grid(line: Line) -> None:
    result = line.with_worker(line.worker.train, "train", line.photos(), "mug", "--steps", 8, "--seed", 7, "--yes")

    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "left out: notes.txt is not a photo or a zip archive"
    assert lines[1] == "8 steps of full on 'starter' (sd1): adamw at learning rate 5e-06"
    assert lines[2].startswith("note: memory and disk are unknown")
    assert lines[3].startswith("note: no job with these settings has succeeded on this base model yet")
    assert lines[4].startswith("uploaded 3 photos as data set ")
    # Each figure is shown while it is the newest; on a busy machine one may be passed over.
    assert re.search(r"train (0/8, loss 0\.5000|4/8, loss 0\.1000|8/8, loss 0\.0556)", result.output), result.output
    assert "'sks mug' v1 is in the catalogue as model version 1" in result.output
    assert "only you see it; show it to everybody with:  darkroom publish 1" in result.output
    assert "likeness of the subject  0.42  0.81        0.90    cosine" in result.output
    grid = Path(lines[-1].removeprefix("picture grid:  "))
    assert grid.is_absolute()
    assert image_size(grid) == (64, 48)
    recipe = line.jobs()[0].request["recipe"]
    assert isinstance(recipe, dict)
    assert (recipe["steps"], recipe["seed"]) == (8, 7)


def test_a_class_that_the_base_does_not_know_is_refused_before_anything_is_uploaded(line: Line) -> None:
    result = line("train", line.photos(), "dog", "--yes")

    assert result.exit_code == 1
    assert "base model 'starter' does not know 'dog'. It knows: mug, cat." in result.output
    assert "darkroom base add FOLDER --name sd15" in result.output
    assert line.door.client().get("/api/v1/data-sets").json()["items"] == []


def test_a_refused_request_names_its_fields_and_leaves_no_photos_behind(line: Line) -> None:
    result = line("train", line.photos(), "mug", "--identifier", "!!", "--name", " ", "--yes")

    assert result.exit_code == 1
    assert "identifier: must be one rare word" in result.output
    assert "name: must not be blank" in result.output
    assert line.door.client().get("/api/v1/data-sets").json()["items"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no photos in"),
        (["notes.txt"], "no photos in"),
        (["one.png"], "at least 2"),
        (["text.jpg", "one.png"], "'text.jpg'"),
    ],
)
def test_a_folder_without_usable_photos_says_what_to_do(line: Line, content: list[str], message: str) -> None:
    folder = line.folder / "photos"
    folder.mkdir()
    for name in content:
        (folder / name).write_bytes((line.photos() / "0.png").read_bytes() if name == "one.png" else b"text")

    result = line("train", folder, "mug", "--yes")

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert line.jobs() == []


def test_photos_elsewhere_come_with_their_captions_and_without_a_secret(line: Line) -> None:
    filesystem = MemoryFileSystem()
    try:
        for name, content in (("a.png", photo(1)), ("a.txt", b"at sea"), ("b.png", photo(2)), ("x.npz", b"")):
            filesystem.pipe_file(f"/me:hunter2@shots/3_zwx mug/{name}", content)
        result = line("train", "memory://me:hunter2@shots", "mug", "--yes", "--detach")
    finally:
        filesystem.store.clear()
        filesystem.pseudo_dirs[:] = [""]

    assert result.exit_code == 0, result.output
    assert "left out: 3_zwx mug/x.npz is neither a photo nor a caption of one" in result.output
    [job] = line.jobs()
    assert job.request["recipe"]["identifier"] == "zwx"  # pyright: ignore[reportIndexIssue]
    client = line.door.client()
    [data_set] = client.get("/api/v1/data-sets").json()["items"]
    images = client.get(f"/api/v1/data-sets/{data_set['id']}").json()["images"]
    said = [(data_set["name"], image["caption"], image["repeats"]) for image in images]
    assert said == [("shots", "at sea", 3), ("shots", "", 3)]
    assert "hunter2" not in result.output + str(job) + str(data_set)


def test_an_identifier_of_the_folder_that_is_not_used_is_named(line: Line) -> None:
    wanted = {"classWord": "cup"}
    unused = take_identifier(wanted, ["zwx mug"])
    assert unused.startswith("not used: 'zwx mug', which the photos' folder is named for: the class word is 'cup'; ")
    assert wanted == {"classWord": "cup"}
    folder = line.folder / "shots" / "3_zwx mug"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(photo(number))
    # The first class that the base knows stands in for the one that is missing.
    result = line("train", folder.parent, "--print-config")
    assert result.exit_code == 0, result.output
    assert "there is no class word yet; --identifier sets the subject's word" in result.output
    taken = line("train", folder.parent, "mug", "--print-config")
    assert "not used" not in taken.output
    assert "identifier: zwx" in taken.output


def test_folders_of_several_subjects_are_named_and_an_identifier_of_none_is_warned_of(line: Line) -> None:
    both = line.folder / "both"
    for number, name in enumerate(("10_abc mug", "5_ohwx mug")):
        (both / name).mkdir(parents=True)
        (both / name / "1.png").write_bytes(photo(number))
    result = line("train", both, "mug", "--yes", "--detach")
    assert result.exit_code == 0, result.output
    assert "several subjects: the photos' folders are named for 'abc mug', 'ohwx mug', and each is" in result.output
    assert "--identifier sets whose word samples and evaluation use" in result.output
    assert "warning: the identifier 'sks' is in no photo's prompt" in result.output
    named = line("train", both, "mug", "--identifier", "ohwx", "--yes", "--detach")
    assert named.exit_code == 0, named.output
    assert "several subjects" not in named.output
    assert "warning: the identifier" not in named.output
    assert take_identifier({}, [f"{number} mug" for number in range(7)]).count(" mug'") == 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere", "there is nothing at memory://nowhere"),
        ("nosuch://shots", "fsspec knows no protocol 'nosuch'"),
        ("gs://shots", "gs:// needs a library that is not installed here: pip install gcsfs"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_to_do(line: Line, url: str, message: str) -> None:
    result = line("train", url, "mug", "--yes")

    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


def test_a_failed_job_is_an_error_with_its_reason_and_the_way_back(line: Line) -> None:
    result = line.with_worker(line.worker.fail, "train", line.photos(), "mug", "--yes")

    assert result.exit_code == 1
    assert "failed: Use a smaller batchSize. (out_of_memory)" in result.output
    assert f"darkroom jobs retry {line.jobs()[0].id}" in result.output


def test_control_c_leaves_the_job_running_and_says_how_to_come_back(line: Line) -> None:
    def interrupt() -> None:
        line.worker.next_job()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    # A test run that was started in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = line.with_worker(interrupt, "train", line.photos(), "mug", "--yes")
    finally:
        signal.signal(signal.SIGINT, before)

    job = line.jobs()[0]
    assert result.exit_code == 130
    assert job.state == "running"
    assert f"darkroom jobs follow {job.id}" in result.output
    assert f"darkroom jobs cancel {job.id}" in result.output


def test_before_the_start_it_says_what_is_trained_and_the_estimates_own_time() -> None:
    request = {"steps": 400, "method": "full", "baseModel": "sd15", "preset": "gpu-12gb"}
    plan = TrainingEstimateResponse(
        request={**request, "optimizer": "adamw_8bit", "learningRate": 5e-6},
        family="sd1",
        memory=None,
        disk=None,
        times=(TimeResponse("cpu", 3, seconds_per_step=0.5, other_seconds=20.0, seconds=220.0),),
        notes=(),
    )
    what, time_ = short_lines(plan)
    assert what == "400 steps of full on 'sd15' (sd1), preset gpu-12gb: adamw_8bit at learning rate 5e-06"
    assert time_ == "time: about 4 min on cpu (0.5 s a step and 20 s before and after them, over 3 jobs)"
    assert time_ in list(estimate_lines(plan))
    assert in_words(7_900) == "2 h 12 min"
