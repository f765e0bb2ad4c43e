"""A training needs no MLflow: it publishes without one, and upkeep makes good in MLflow what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.jobs.lifecycle import RunningJob
from flows.jobs.tracking import tracking_client
from flows.jobs.tracking_run import TrackingRun
from flows.training.dreambooth import train_dreambooth
from flows.training.tracking.job_tracking import JobTracking
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.catalog import catalog
from storage.records.jobs.jobs import JobState
from storage.settings import MlflowSettings, Settings
from storage.stores import Stores
from tests.flows.training import test_dreambooth
from tests.flows.training.gate import Gate
from tests.flows.training.test_dreambooth import end_of, submit

STEPS = 4
environment, with_mlflow = test_dreambooth.environment, test_dreambooth.settings


@pytest.fixture
def gate(mlflow_settings: MlflowSettings) -> Iterator[Gate]:
    """Before MLflow's server."""
    gate = Gate(mlflow_settings.port)
    yield gate
    gate.close()


@pytest.fixture
def settings(with_mlflow: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """MLflow behind the gate; nobody waits seconds for it."""
    for waiting in (JobTracking.open, JobTracking.flush, TrackingRun.flush):
        monkeypatch.setattr(waiting, "__defaults__", (0.1,))
    mlflow = with_mlflow.mlflow.model_copy(update={"url": f"http://127.0.0.1:{gate.port}"})
    return with_mlflow.model_copy(update={"mlflow": mlflow})


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("closed_at", ["the beginning", "fit:3"])
def test_a_job_publishes_without_mlflow_and_its_run_is_made_good(
    closed_at: str, stores: Stores, gate: Gate, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(stores, tiny_model, steps=STEPS, prior_loss_weight=0.0, evaluation_scenes=("on the beach",))
    reach = RunningJob.reach

    def reached(running: RunningJob, point: str) -> None:
        if point == closed_at:
            gate.close()
        reach(running, point)

    monkeypatch.setattr(RunningJob, "reach", reached)
    if closed_at != "the beginning":
        gate.open()
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    ended, version = end_of(stores, job.id), stores.database.run(catalog.version_of_job(job.id))
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    assert version is not None
    assert version.registered_as is None
    assert (ended.tracking_run_id is None) == (closed_at == "the beginning")
    [away] = reconcile_tracking(stores)
    assert away.startswith("MLflow did not take it, tried again next time")

    gate.open()
    run, registry = sorted(reconcile_tracking(stores), key=lambda finding: "registry" in finding)
    assert run.startswith("tracking run" if ended.tracking_run_id else f"job {job.id} had no tracking run")
    assert registry.startswith(f"model version {version.id} was not in MLflow's registry: now ")
    client = tracking_client(stores.settings)
    run_id = end_of(stores, job.id).tracking_run_id
    assert run_id is not None
    found = client.get_run(run_id)
    assert (found.info.status, found.data.params["class_word"]) == ("FINISHED", "mug")
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == list(range(1, STEPS + 1))
    assert "subject_fidelity" in found.data.metrics, "what was measured after the fit is there too"
    name = stores.database.run(catalog.version_of_job(job.id))
    assert name is not None
    assert name.registered_as is not None
    assert client.get_model_version(*name.registered_as.rsplit("/", 1)).run_id == run_id
    assert reconcile_tracking(stores) == []
