"""TensorBoard's own reader finds in the event files what a job has measured."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows.training.tracking.protocol import TrackedJob
from flows.training.tracking.tensorboard import TRACKER, job_folder
from storage.settings import Settings

JOB = TrackedJob(UUID(int=7), "sks mug / 00000007", {"steps": 8, "class_word": "mug"}, {})


def a_picture(colour: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(written, "PNG")
    return written.getvalue()


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


@pytest.fixture
def place(tmp_path: Path) -> Settings:
    settings = Settings(data_folder=tmp_path)
    settings.tracking.tensorboard_folder = tmp_path / "boards"
    return settings


def test_scalars_images_and_the_recipe_are_read_back(place: Settings) -> None:
    tracker = TRACKER.begin(place, JOB, 0)
    for step in (1, 2):
        tracker.log(step, {"loss": 1 / step, "learning_rate.unet": 1e-3})
    tracker.image("sample-0", 2, a_picture("red"))
    tracker.end("FINISHED")
    folder = job_folder(place, JOB)
    assert folder == place.tracking.tensorboard_folder / "sks-mug-00000007"  # pyright: ignore[reportOptionalOperand]
    found = read(folder)
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert [one.step for one in found.Scalars("learning_rate.unet")] == [1, 2]
    [picture] = found.Images("sample-0")
    assert (picture.step, picture.width, picture.height) == (2, 8, 6)
    assert b"| class_word | mug |" in found.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]


def test_a_name_that_no_folder_may_have_is_cut(place: Settings) -> None:
    job = dataclasses.replace(JOB, name=f"{'猫' * 120} / 00000007")
    tracker = TRACKER.begin(place, job, 0)
    tracker.log(1, {"loss": 1.0})
    tracker.end("FINISHED")
    folder = job_folder(place, job)
    assert folder.name == f"{'猫' * 66}-{JOB.id}"
    assert [one.value for one in read(folder).Scalars("loss")] == [1.0]


def test_steps_that_an_attempt_repeats_stand_there_once(place: Settings) -> None:
    first = TRACKER.begin(place, JOB, 0)
    for step in range(1, 7):
        first.log(step, {"loss": float(step)})
    first.end("RUNNING")  # the process died at step 6; its last checkpoint was step 4
    second = TRACKER.begin(place, JOB, 4)
    for step in range(5, 9):
        second.log(step, {"loss": float(step)})
    second.end("FINISHED")
    assert [(one.step, one.value) for one in read(job_folder(place, JOB)).Scalars("loss")] == [
        (step, float(step)) for step in range(1, 9)
    ]


def test_what_was_flushed_is_there_though_the_file_was_never_closed(place: Settings) -> None:
    tracker = TRACKER.begin(place, JOB, 0)
    tracker.log(1, {"loss": 1.0})
    tracker.flush()
    assert [one.step for one in read(job_folder(place, JOB)).Scalars("loss")] == [1]
    tracker.end("RUNNING")
