"""A whole training with everything on: what MLflow, TensorBoard and Weights & Biases have of it afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows.jobs.kept_metrics import LAST_PART, METRICS_FILE, part_name, read_metrics
from flows.jobs.tracking import tracking_client
from flows.training.callbacks import StepReport
from flows.training.dreambooth import train_dreambooth
from flows.training.tracking.job_tracking import JobTracking
from flows.training.tracking.lookup import tracker_named
from flows.training.tracking.protocol import TrackedJob
from flows.training.work import TrainingWork
from storage.errors import InvalidRequest, JobCannotSucceed
from storage.postgres.jobs import job_files, submissions
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.settings import Settings
from storage.stores import Stores
from storage.tracking_settings import TrackingSettings
from tests.flows.training import test_dreambooth
from tests.flows.training.test_dreambooth import STEPS, end_of, submit
from tests.flows.training.tracking.test_wandb import history_of, run_file

environment = test_dreambooth.environment
with_mlflow = test_dreambooth.settings


@pytest.fixture
def settings(with_mlflow: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Every tracker there is."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(with_mlflow.data_folder / "wandb" / "cache"))
    tracking = TrackingSettings(trackers="tensorboard, wandb", wandb_mode="offline")
    return with_mlflow.model_copy(update={"tracking": tracking})


EACH_STEP = {"loss", "instance_loss", "prior_loss", "gradient_norm", "step_seconds", "images_per_second"} | {
    *("memory_peak_gb", "learning_rate", "learning_rate.unet", "learning_rate.identifier")
}
MEASURED = {f"validation_loss.{name}" for name in ("held_out_photos", "class_images", "unrelated_prompts")}


@pytest.mark.usefixtures("environment", "prefect")
def test_each_tracker_has_every_metric_of_every_step(stores: Stores, settings: Settings, tiny_model: Path) -> None:
    job = submit(stores, tiny_model, validation_every=4, validation_photos=1)
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    ended = end_of(stores, job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    assert ended.tracking_run_id is not None

    [file] = [one for one in stores.database.run(job_files.files(job.id)) if one.role is JobFileRole.METRICS]
    assert file.name == METRICS_FILE, "the parts are gone, and one file has what they had"
    points: dict[str, dict[int, float]] = {}
    for line in stores.blobs.read(file.sha256).splitlines():
        point = json.loads(line)
        points.setdefault(point["name"], {})[point["step"]] = point["value"]
    for name in EACH_STEP:
        assert sorted(points[name]) == list(range(1, STEPS + 1)), name
    for name in MEASURED:
        assert sorted(points[name]) == [0, 4, STEPS], name
    assert {"memory_peak_gb.fit", "memory_peak_gb.evaluate", "memory_peak_gb.export"} <= points.keys()

    client = tracking_client(settings)
    for name in (*EACH_STEP, *MEASURED):
        history = client.get_metric_history(ended.tracking_run_id, name)
        assert {one.step: one.value for one in history} == points[name], name
    assert client.get_run(ended.tracking_run_id).data.tags["darkroom.attempt.1"] == "from step 0"

    [folder] = (settings.data_folder / "tensorboard").iterdir()
    board = EventAccumulator(str(folder))
    board.Reload()
    for name in (*EACH_STEP, *MEASURED):
        assert {one.step: one.value for one in board.Scalars(name)} == pytest.approx(points[name], rel=1e-6), name
    assert sorted({one.step for one in board.Images("sample-0")}) == [4, STEPS]

    rows = history_of(run_file(settings))
    for name in (*EACH_STEP, *MEASURED):
        assert {row["step"]: row[name] for row in rows if name in row} == pytest.approx(points[name]), name


@pytest.mark.usefixtures("environment", "prefect")
def test_a_retry_has_every_step_of_the_job_that_failed_below_its_run(
    stores: Stores, settings: Settings, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.tracking.trackers = ""
    monkeypatch.setenv("DARKROOM_TRACKING__TRACKERS", "")
    job = submit(stores, tiny_model, validation_every=2)
    stepped = TrainingWork._stepped

    def fails_at_three(work: TrainingWork, report: StepReport) -> None:
        stepped(work, report)
        if report.step == 3:
            raise JobCannotSucceed("no more")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingWork, "_stepped", fails_at_three)
        train_dreambooth(job.id, 1, return_state=True)
    failed = end_of(stores, job.id)
    assert failed.state is JobState.FAILED
    kept = [one.name for one in stores.database.run(job_files.files(job.id)) if one.role is JobFileRole.METRICS]
    assert kept == [part_name(2), LAST_PART]
    assert steps_of(stores, job.id, "loss") == [1, 2, 3]

    again, _ = stores.database.run(submissions.retry(job.id, job.account_id, settings))
    assert train_dreambooth(again.id, 1, return_state=True).is_completed()
    ended = end_of(stores, again.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    assert steps_of(stores, again.id, "loss") == list(range(1, STEPS + 1))
    assert steps_of(stores, again.id, "validation_loss.training_photos") == [0, 2, 4, 6]
    client = tracking_client(settings)
    run = client.get_run(str(ended.tracking_run_id))
    assert run.data.tags[MLFLOW_PARENT_RUN_ID] == failed.tracking_run_id
    assert run.data.tags["darkroom.attempt.1"] == "from step 2"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [one.step for one in history] == list(range(1, STEPS + 1))


def steps_of(stores: Stores, job_id: UUID, name: str) -> list[int]:
    points = read_metrics(stores.blobs, stores.database.run(job_files.files(job_id)))
    return [point.step for point in points if point.name == name]


class Refusing:
    """A tracker that takes nothing, in place of one."""

    def begin(self, *_: Any) -> Any:
        raise ConnectionError("nobody there")


def test_a_tracker_that_fails_leaves_mlflow_and_the_training_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flows.training.tracking.tensorboard.TRACKER", Refusing())
    settings.tracking.trackers = "tensorboard"
    tracking = JobTracking(settings, a_tracked_job())
    tracking.resume([], up_to_step=0)
    for step in (1, 2):
        tracking.log(step, {"loss": 1.0})
    assert tracking.end("FINISHED")
    assert [text for text in caplog.messages if "nobody there" in text] == [
        "tracker tensorboard gets no more of this job: ConnectionError: nobody there"
    ]
    history = tracking_client(settings).get_metric_history(str(tracking.run_id), "loss")
    assert [one.step for one in history] == [1, 2]


def a_tracked_job() -> TrackedJob:
    return TrackedJob(uuid4(), "a job", {}, {})


def test_a_tracker_whose_library_is_missing_is_named_before_anything_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flows.training.tracking.wandb", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(JobCannotSucceed, match=r"'wandb'.*pip install 'darkroom\[trackers\]'"):
        JobTracking(settings, a_tracked_job())
    with pytest.raises(InvalidRequest, match="known are: tensorboard, wandb"):
        tracker_named("aim")
