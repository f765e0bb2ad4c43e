"""What MLflow refuses of a value is dropped; what it says of itself, the caller or the run loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import RestException
from mlflow.tracking import MlflowClient

from flows.jobs import refused_values, system_metrics
from flows.jobs.metrics_document import Point, write_document
from flows.jobs.refused_values import send_what_is_taken
from flows.jobs.tracking import EXPERIMENT, find_or_create_run, tracking_client
from flows.jobs.tracking_run import TrackingRun
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFileRole
from storage.settings import Settings
from storage.stores import Stores
from tests.storage.makers import a_job

OUTAGES = ("PERMISSION_DENIED", "ENDPOINT_NOT_FOUND", "DEADLINE_EXCEEDED", "INTERNAL_ERROR", "BAD_REQUEST")


def a_batch(count: int = 20) -> list[Metric]:
    return [Metric("loss", float(step), 1_000, step) for step in range(count)]


def steps_of(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "loss")]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Refuse batches that hold one of some steps, or all; returns how many values each call had."""
    log_batch = MlflowClient.log_batch

    def refuse(
        patch: pytest.MonkeyPatch = monkeypatch, code: str = "", steps: frozenset[int] | None = None
    ) -> list[int]:
        calls: list[int] = []

        def refused(client: MlflowClient, run_id: str, metrics: list[Metric], **others: Any) -> None:
            calls.append(len(metrics))
            if code and metrics and (steps is None or any(one.step in steps for one in metrics)):
                raise RestException({"error_code": code, "message": "no"})
            log_batch(client, run_id, metrics=metrics, **others)

        patch.setattr(MlflowClient, "log_batch", refused)
        return calls

    return refuse


@pytest.mark.parametrize("code", OUTAGES)
def test_an_outage_that_answers_with_an_error_loses_no_metric(
    code: str, tracked: Settings, refusing: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_values, "REFUSALS", 2)
    job_id = uuid4()
    run = TrackingRun(tracked, EXPERIMENT, job_id, {})
    assert run.open(30)
    with monkeypatch.context() as patch:
        refusing(patch, code)
        for step in range(20):
            run.log(step, {"loss": 1.0})
        assert [run.flush(0) for _ in range(4)] == [False] * 4
    assert run.end("FINISHED")
    assert steps_of(tracking_client(tracked), str(run.run_id)) == list(range(20))


def test_with_all_refused_by_the_database_only_some_values_are_tried(
    tracked: Settings, refusing: Callable[..., list[int]]
) -> None:
    client, job_id = tracking_client(tracked), uuid4()
    run_id = find_or_create_run(client, EXPERIMENT, job_id, {})
    calls = refusing(code="BAD_REQUEST")
    with pytest.raises(RestException, match="BAD_REQUEST"):
        send_what_is_taken(client, run_id, job_id, a_batch(1000))
    assert len(calls) < 30


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "BAD_REQUEST"])
def test_a_value_is_dropped_when_others_of_its_batch_are_taken(
    code: str, tracked: Settings, refusing: Callable[..., list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    client, job_id = tracking_client(tracked), uuid4()
    run_id = find_or_create_run(client, EXPERIMENT, job_id, {})
    refusing(code=code, steps=frozenset({0, 7}))
    assert send_what_is_taken(client, run_id, job_id, a_batch()) == 18
    assert steps_of(client, run_id) == [step for step in range(20) if step not in (0, 7)]
    assert [line for line in caplog.messages if "does not take" in line] == [
        f"MLflow does not take metric 'loss' of job {job_id}: {code}"
    ] * 2


def test_points_wait_for_a_deleted_run_without_a_request_for_each_and_no_end_waits_for_it(
    tracked: Settings,
    refusing: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(refused_values, "REFUSALS", 1)
    run = TrackingRun(tracked, EXPERIMENT, uuid4(), {})
    assert run.open(30)
    client = tracking_client(tracked)
    client.delete_run(str(run.run_id))
    calls = refusing()
    for step in range(20):
        run.log(step, {"loss": 1.0})
    assert not run.flush(0)
    assert set(calls) == {20}
    assert "does not take" not in caplog.text
    client.restore_run(str(run.run_id))
    assert run.flush(30)
    assert steps_of(client, str(run.run_id)) == list(range(20))
    client.delete_run(str(run.run_id))
    run.log(20, {"loss": 1.0})
    assert not run.end("FINISHED")


def test_a_sample_of_the_machine_that_mlflow_refuses_is_left_out_with_one_line(
    tracked: Settings,
    refusing: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_SECONDS", 0.0)
    run = TrackingRun(tracked, EXPERIMENT, uuid4(), {})
    assert run.open(30)
    run.close()
    client = tracking_client(tracked)
    with monkeypatch.context() as patch:
        calls = refusing(patch, "PERMISSION_DENIED")
        run.file("a.txt", b"a")
        assert run.flush(0), "the file does not wait for it"
    assert len([count for count in calls if count]) == 1
    assert [file.path for file in client.list_artifacts(str(run.run_id))] == ["a.txt"]
    assert [line.endswith("PERMISSION_DENIED") for line in caplog.messages if "sample" in line] == [True]


def test_a_run_that_is_filled_says_how_many_points_mlflow_took(
    stores: Stores, tracked: Settings, refusing: Callable[..., list[int]]
) -> None:
    stores.settings.mlflow = tracked.mlflow
    job = a_job(stores.database)
    stores.database.run(jobs.claim(job.id, 1, None))
    blob = stores.blobs.put(write_document([Point("loss", 1.0, step, 1_000) for step in range(5)]))
    put = partial(job_files.put_file, name="metrics.jsonl", role=JobFileRole.METRICS, media_type="application/jsonl")
    stores.database.run(put(job.id, 1, sha256=blob.sha256, size=blob.size))
    stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    refusing(code="INVALID_PARAMETER_VALUE", steps=frozenset({3}))
    [finding] = reconcile_tracking(stores)
    assert finding.endswith("4 points filled, 1 refused")
