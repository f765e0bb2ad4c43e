"""A job has one tracking run with each step once, and MLflow's outage stops nothing."""

from __future__ import annotations

import errno
import io
import math
import os
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import RestException
from mlflow.tracking import MlflowClient
from PIL import Image

from flows.diffusion.sampled_sets import png
from flows.jobs import refused_values, system_metrics, tracking_run
from flows.jobs.metrics_document import Point, read_document
from flows.jobs.tracking import EXPERIMENT, JOB_TAG, tracking_client
from flows.jobs.tracking_facts import job_inputs, job_tags
from flows.jobs.tracking_run import TrackingRun
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFileRole
from storage.settings import MlflowSettings, Settings
from storage.stores import Stores
from tests.storage.makers import a_job, an_account

NOBODY = "http://127.0.0.1:9"


def a_tracking_run(settings: Settings, job_id: UUID) -> TrackingRun:
    return TrackingRun(settings, EXPERIMENT, job_id, {"mlflow.runName": "a test"})


def runs_of(client: MlflowClient, job_id: UUID) -> list[str]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{JOB_TAG}` = '{job_id}'")
    return [str(run.info.run_id) for run in found]


def test_a_resumed_job_goes_on_in_its_run_without_repeating_a_step(tracked: Settings) -> None:
    job_id = uuid4()
    first = a_tracking_run(tracked, job_id)
    first.params({"steps": 8})
    for step in range(1, 7):
        first.log(step, {"loss": 1 / step})
    assert first.flush(30)
    kept = first.document()
    first.close()  # the process died after step 6; its last checkpoint was step 4

    second = a_tracking_run(tracked, job_id)
    second.resume(read_document(kept), up_to_step=4)
    for step in range(5, 9):
        second.log(step, {"loss": 1 / step})
    assert second.end("FINISHED")

    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [
        (step, 1 / step) for step in range(1, 9)
    ]
    assert [point.step for point in read_document(second.document())] == list(range(1, 9))
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.params == {"steps": "8"}


def test_points_taken_over_while_others_are_on_their_way_all_arrive_once(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, resumed = threading.Event(), threading.Event()
    log_batch = MlflowClient.log_batch

    def slow(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        sending.set()
        assert resumed.wait(30)
        return log_batch(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    monkeypatch.setattr(tracking_run, "SEND_SECONDS", 0.1)
    job_id = uuid4()
    run = a_tracking_run(tracked, job_id)
    run.log(0, {"seconds": 1.0, "peak": 2.0})
    assert sending.wait(30)
    run.resume([Point("loss", 1 / step, step, step) for step in (1, 2, 3)], up_to_step=3)
    resumed.set()
    run.log(4, {"loss": 1 / 4})
    assert run.end("FINISHED")
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [1, 2, 3, 4]
    assert [point.step for point in client.get_metric_history(run_id, "seconds")] == [0]
    assert [point.step for point in read_document(run.document())] == [1, 2, 3, 0, 0, 4]


def test_more_points_than_one_call_takes_all_arrive(tracked: Settings) -> None:
    job_id = uuid4()
    run = a_tracking_run(tracked, job_id)
    for step in range(1, 1251):
        run.log(step, {"loss": 0.5, "rate": 0.1})
    run.file("samples/grid.png", b"not really a picture")
    assert run.end("FINISHED")
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    assert len(client.get_metric_history(run_id, "rate")) == 1250
    assert [file.path for file in client.list_artifacts(run_id, "samples")] == ["samples/grid.png"]


def test_while_mlflow_is_unavailable_nothing_waits_long_and_nothing_is_lost(settings: Settings) -> None:
    settings.mlflow = MlflowSettings(url=NOBODY)
    run = a_tracking_run(settings, uuid4())
    started = time.monotonic()
    for step in range(1, 600):
        run.log(step, {"loss": 1.0})
    assert time.monotonic() - started < 5
    assert run.open(wait_seconds=0.1) is None
    assert not run.end("FINISHED")
    assert len(read_document(run.document())) == 599


def test_reconcile_ends_and_fills_a_run_that_a_dead_process_left_open(stores: Stores, tracked: Settings) -> None:
    job = a_job(stores.database)
    stores.settings.mlflow = tracked.mlflow
    stores.database.run(jobs.claim(job.id, 1, None))
    run = a_tracking_run(tracked, job.id)
    run.log(1, {"loss": 2.0})
    assert run.flush(30)
    run.close()
    run.log(2, {"loss": 1.0})
    blob = stores.blobs.put(run.document())
    put = {"name": "metrics.jsonl", "role": JobFileRole.METRICS, "media_type": "application/jsonl"}
    stores.database.run(job_files.put_file(job.id, 1, sha256=blob.sha256, size=blob.size, **put))
    stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    assert any(str(job.id) in finding for finding in reconcile_tracking(stores))
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job.id)
    assert client.get_run(run_id).info.status == "FAILED"
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [2.0, 1.0]
    assert not any(str(job.id) in finding for finding in reconcile_tracking(stores))


def test_a_run_that_was_never_made_is_filled_from_parts_of_which_some_repeat_steps(
    stores: Stores, tracked: Settings
) -> None:
    job = a_job(stores.database)
    stores.settings.mlflow = tracked.mlflow
    stores.database.run(jobs.claim(job.id, 1, None))
    # The second part is of an attempt whose checkpoint was damaged: the third repeats its steps, and holds.
    for name, steps, value in (
        ("a.jsonl", range(1, 5), 1.0),
        ("b.jsonl", range(5, 7), 2.0),
        ("c.jsonl", range(5, 9), 3.0),
    ):
        content = b"".join(msgspec.json.encode(Point("loss", value, step, 1_000 + step)) + b"\n" for step in steps)
        blob = stores.blobs.put(content)
        put = {"role": JobFileRole.METRICS, "media_type": "application/jsonl"}
        stores.database.run(job_files.put_file(job.id, 1, name=name, sha256=blob.sha256, size=blob.size, **put))
    stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    [finding] = reconcile_tracking(stores)
    assert "8 points filled" in finding
    [run_id] = runs_of(tracking_client(tracked), job.id)
    history = tracking_client(tracked).get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (step, 1.0 if step < 5 else 3.0) for step in range(1, 9)
    ]


def test_parts_hold_each_point_once_and_together_what_the_whole_document_holds(settings: Settings) -> None:
    settings.mlflow = MlflowSettings(url=NOBODY)
    run = a_tracking_run(settings, uuid4())
    earlier = [Point("loss", 0.5, step, step) for step in range(1, 9)]
    run.resume(earlier, up_to_step=4)
    parts = []
    for step in range(5, 205):
        run.log(step, {"loss": 1.0, "rate": 0.1})
        if step % 20 == 0:
            parts.append(run.next_part())
    parts.append(run.next_part())
    run.close()
    kept = b"".join(msgspec.json.encode(point) + b"\n" for point in earlier[:4])
    assert kept + b"".join(parts) == run.document(), "what is written grows with the steps, not with their square"
    assert run.next_part() == b""
    assert run.has("rate", 204)
    assert not run.has("rate", 4)


def test_a_retry_writes_the_points_of_the_job_that_it_retries_among_its_own(settings: Settings) -> None:
    settings.mlflow = MlflowSettings(url=NOBODY)
    run = a_tracking_run(settings, uuid4())
    run.resume([Point("loss", 0.5, 1, 1), Point("loss", 0.4, 2, 2)], up_to_step=1, kept=False)
    run.log(2, {"loss": 0.3})
    part = read_document(run.next_part())
    run.close()
    assert [(point.step, point.value) for point in part] == [(1, 0.5), (2, 0.3)]


def test_reconcile_makes_the_run_of_a_job_that_ran_while_mlflow_was_unavailable(
    stores: Stores, tracked: Settings
) -> None:
    job = a_job(stores.database)
    stores.settings.mlflow = tracked.mlflow
    stores.database.run(jobs.claim(job.id, 1, None))
    blob = stores.blobs.put(msgspec.json.encode(Point("loss", 3.0, 1, 1_000)) + b"\n")
    put = {"name": "metrics.jsonl", "role": JobFileRole.METRICS, "media_type": "application/jsonl"}
    stores.database.run(job_files.put_file(job.id, 1, sha256=blob.sha256, size=blob.size, **put))
    stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    [finding] = reconcile_tracking(stores)
    assert f"job {job.id} had no tracking run" in finding
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job.id)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics, run.data.params["class_word"]) == ("FAILED", {"loss": 3.0}, "mug")
    assert stores.database.run(jobs.get(job.id)).tracking_run_id == run_id
    assert reconcile_tracking(stores) == []


def test_a_full_disk_holds_the_sender_up_and_a_call_that_mlflow_refuses_for_good_is_dropped(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = uuid4()
    run = a_tracking_run(tracked, job_id)
    assert run.open()

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tracking_run, "TemporaryDirectory", full)
        run.file("a.txt", b"a")
        assert not run.flush(0)
    assert run.flush(), "what waited for room is sent"
    run.inputs(DatasetInput(Dataset("n" * 501, "digest", "local", "a longer name than MLflow takes"), []))
    run.file("c.txt", b"c")
    assert run.end("FINISHED")
    assert "does not take a picture, file or input" in caplog.text
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    assert [file.path for file in client.list_artifacts(run_id)] == ["a.txt", "c.txt"]


def test_a_parameter_or_tag_that_mlflow_refuses_for_good_is_dropped_alone(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refused_values, "REFUSALS", 2)
    job_id = uuid4()
    run = a_tracking_run(tracked, job_id)
    run.params({"steps": "eight"})
    assert run.flush(30)
    run.params({"steps": "nine", "rate": 1} | {f"more.{number}": number for number in range(150)})
    run.tags({"fine": "yes", "k" * 300: "a longer name than MLflow takes"})
    run.log(1, {"loss": 1.0})
    assert not run.flush(0), "once may be a mistake"
    run.log(2, {"loss": 2.0})
    run.image("sample", 2, png(Image.new("RGB", (8, 8))))
    assert run.end("FINISHED")
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    data = client.get_run(run_id).data
    assert (data.params["steps"], data.params["rate"], len(data.params), data.tags["fine"]) == (
        "eight",
        "1",
        152,
        "yes",
    )
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [1.0, 2.0]
    assert client.list_artifacts(run_id, "images")
    dropped = [line for line in caplog.messages if "does not take" in line]
    assert len(dropped) == 2
    assert f"param 'steps' of job {job_id}: INVALID_PARAMETER_VALUE" in dropped[0]
    assert "nine" not in caplog.text


def test_a_tag_that_mlflow_refuses_keeps_no_run_from_being_made(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_values, "REFUSALS", 1)
    job_id = uuid4()
    run = TrackingRun(tracked, EXPERIMENT, job_id, {"k" * 300: "", "fine": "yes", "mlflow.runName": "named"})
    assert run.open(30)
    assert run.end("FINISHED")
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    found = client.get_run(run_id)
    assert (found.data.tags["fine"], found.info.run_name) == ("yes", "named")


def test_one_run_that_mlflow_refuses_keeps_no_other_from_being_repaired(
    stores: Stores, tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.settings.mlflow = tracked.mlflow
    account = an_account(stores.database)
    refused, other = (a_job(stores.database, account) for _ in range(2))
    for job in (refused, other):
        stores.database.run(jobs.claim(job.id, 1, None))
        stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    ended: list[str] = []
    terminated = MlflowClient.set_terminated

    def refuse_one(client: MlflowClient, run_id: str, status: str) -> None:
        if client.get_run(run_id).data.tags[JOB_TAG] == str(refused.id):
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "not that one"})
        ended.append(run_id)
        terminated(client, run_id, status)

    monkeypatch.setattr(MlflowClient, "set_terminated", refuse_one)
    first, second, third = reconcile_tracking(stores)
    assert first.startswith(f"job {refused.id} has no tracking run, MLflow refuses it: INVALID_PARAMETER_VALUE")
    assert second.startswith(f"job {other.id} had no tracking run that we knew of: now {ended[0]}")
    assert third.endswith("stays open, MLflow refuses its end: INVALID_PARAMETER_VALUE: not that one")
    # Left open by a process that died: this time the refused one is of a job that is known to have a run.
    client = tracking_client(tracked)
    for job in (refused, other):
        [run_id] = runs_of(client, job.id)
        client.update_run(run_id, status="RUNNING")
        stores.database.run(jobs.note_tracking_run(job.id, 1, run_id))
    findings = [finding for finding in reconcile_tracking(stores) if finding.startswith("tracking run")]
    assert sorted("stays open" in finding for finding in findings) == [False, True]
    assert len(ended) == 2


def test_a_value_that_is_no_number_is_left_out_and_earlier_documents_that_hold_one_are_read(settings: Settings) -> None:
    run = TrackingRun(settings, EXPERIMENT, uuid4(), {})
    run.log(1, {"loss": math.nan, "gradient_norm": math.inf, "learning_rate": 0.5})
    document = run.document()
    run.close()
    assert b"null" not in document
    assert [(point.name, point.value) for point in read_document(document)] == [("learning_rate", 0.5)]
    earlier = b'{"name":"loss","value":null,"step":1,"at":1}\n' + document
    assert read_document(earlier) == read_document(document)


def test_pictures_inputs_and_the_machines_load_are_where_mlflows_pages_look_for_them(
    stores: Stores, tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_SECONDS", 0.0)
    job = a_job(stores.database)
    run = TrackingRun(tracked, EXPERIMENT, job.id, job_tags(job))
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    for step in (2, 4):
        run.image("sample-0", step, picture.getvalue())
    run.inputs(*job_inputs(job, 3))
    run.log(4, {"loss": 1.0})
    assert run.end("FINISHED")
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job.id)
    shown = [file.path for file in client.list_artifacts(run_id, "images") if file.path.endswith(".png")]
    assert sorted(name.split("+step+")[0] for name in shown) == ["images/sample-0"] * 2
    assert sorted(int(name.split("+step+")[1].split("+")[0]) for name in shown) == [2, 4]
    found = client.get_run(run_id)
    assert found.inputs is not None
    assert [(one.dataset.name, one.tags[0].value) for one in found.inputs.dataset_inputs] == [
        ("photos", "training"),
        ("class images", "regularization"),
    ]
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(found.data.metrics)
    assert b"system/" not in run.document()
    assert found.data.tags["mlflow.source.name"] == "train-dreambooth"
    assert found.data.tags["mlflow.user"] == str(job.account_id)


def test_the_next_attempt_goes_on_with_the_count_of_system_metrics(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "EVERY_SECONDS", 0.0)
    job_id = uuid4()
    for _ in range(2):
        run = a_tracking_run(tracked, job_id)
        assert run.open()
        assert run.flush()
        run.close()
    client = tracking_client(tracked)
    [run_id] = runs_of(client, job_id)
    steps = [point.step for point in client.get_metric_history(run_id, "system/disk_usage_percentage")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 4
