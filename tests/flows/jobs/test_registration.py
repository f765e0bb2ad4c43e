"""A trained version stands in MLflow's registry once, under the name that Postgres records."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.jobs.registration import ADAPTER_FILE, entry_of, register_version, registry_name
from flows.jobs.tracking import EXPERIMENT, JOB_TAG, find_or_create_run, tracking_client
from flows.upkeep import tracking_repairs
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.catalog import catalog
from storage.postgres.jobs import jobs, publication
from storage.records.catalog.catalog import FileRole, ModelVersion, NewFile, TrainedVersion
from storage.records.jobs.jobs import Job
from storage.settings import Settings
from storage.stores import Stores
from tests.storage.makers import a_job


def publish(stores: Stores, *members: str) -> tuple[Job, int]:
    job = a_job(stores.database, name="a / very * odd name")
    stores.database.run(jobs.claim(job.id, 1, None))
    files = (
        NewFile(path="a.safetensors", role=FileRole.WEIGHTS, sha256="c" * 64, size=1),
        *(NewFile(path=path, role=FileRole.FOLDER, sha256="d" * 64, size=1) for path in members),
    )
    new = TrainedVersion(
        model_name="a / very * odd name",
        base_model="starter",
        trained_words=("sks",),
        recipe={},
        evaluation=None,
        files=files,
    )
    return job, stores.database.run(publication.publish(job.id, 1, new)).id


def test_reconcile_registers_a_version_that_mlflow_missed_once(
    stores: Stores, tracked: Settings, tmp_path: Path
) -> None:
    job, version_id = publish(stores)
    stores.settings.mlflow = tracked.mlflow
    _, finding = reconcile_tracking(stores)
    assert "was not in MLflow's registry" in finding
    assert reconcile_tracking(stores) == []
    client = tracking_client(tracked)
    version = stores.database.run(catalog.version_by_id(version_id))
    job = stores.database.run(jobs.get(job.id))
    registered = version.registered_as
    assert registered is not None
    name, number = registered.rsplit("/", 1)
    assert client.get_model_version_by_alias(name, "current").version == number
    model = stores.database.run(catalog.model_by_id(version.model_id))
    again = register_version(client, entry_of(stores, model, version, job, tmp_path))
    assert again == registered
    [logged] = client.search_logged_models(
        [client.get_run(str(job.tracking_run_id)).info.experiment_id], f"tags.`{JOB_TAG}` = '{job.id}'"
    )
    assert client.get_model_version(name, number).source == f"models:/{logged.model_id}"
    assert (client.get_model_version(name, number).description or "").startswith("full fine-tune of starter, 8 steps.")


def test_a_process_that_died_before_it_registered_leaves_one_logged_model(
    stores: Stores, tracked: Settings, tmp_path: Path
) -> None:
    job, version_id = publish(stores)
    stores.settings.mlflow = tracked.mlflow
    client = tracking_client(tracked)
    with pytest.MonkeyPatch.context() as patch:

        def dies(*_: object, **__: object) -> None:
            raise MlflowException("the server is gone")

        patch.setattr(MlflowClient, "create_model_version", dies)
        assert any("MLflow did not take it" in finding for finding in reconcile_tracking(stores))
    assert any("was not in MLflow's registry" in finding for finding in reconcile_tracking(stores))
    version = stores.database.run(catalog.version_by_id(version_id))
    assert version.registered_as is not None
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    wanted = f"tags.`{JOB_TAG}` = '{job.id}'"
    [logged] = client.search_logged_models([experiment.experiment_id], wanted)
    assert logged.status is LoggedModelStatus.READY


def test_a_version_whose_base_is_gone_keeps_no_other_out_of_the_registry(stores: Stores, tracked: Settings) -> None:
    _, lost = publish(stores, ADAPTER_FILE)
    _, whole = publish(stores)
    stores.settings.mlflow = tracked.mlflow
    findings = reconcile_tracking(stores)
    assert any(f"model version {lost} cannot be put into MLflow's registry" in finding for finding in findings)
    assert any(f"model version {whole} was not in MLflow's registry" in finding for finding in findings)


def test_versions_whose_runs_mlflow_has_lost_or_refuses_keep_no_other_repair_out(
    stores: Stores, tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lost_job, lost), (deleted_job, deleted), (_, refused), (_, full) = (publish(stores) for _ in range(4))
    stores.settings.mlflow = tracked.mlflow
    client = tracking_client(tracked)
    run_id = find_or_create_run(client, EXPERIMENT, deleted_job.id, {})
    stores.database.run(jobs.note_tracking_run(deleted_job.id, 1, run_id))
    client.delete_run(run_id)
    stores.database.run(jobs.note_tracking_run(lost_job.id, 1, "0" * 32))
    true_register = tracking_repairs.register

    def register(stores: Stores, client: MlflowClient, version: ModelVersion) -> str:
        if version.id == refused:
            client.set_registered_model_alias("no such model", "current", "1")
        if version.id == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return true_register(stores, client, version)

    monkeypatch.setattr(tracking_repairs, "register", register)
    findings = reconcile_tracking(stores)
    for version_id in (lost, deleted):
        assert any(f"model version {version_id} was not in MLflow's registry" in one for one in findings), findings
    for version_id, why in ((refused, "no such model"), (full, "No space left")):
        [line] = [one for one in findings if f"model version {version_id} cannot be put" in one]
        assert why in line


def test_a_registry_name_has_only_signs_that_it_takes() -> None:
    assert registry_name("sks mug", 7) == "sks mug #7"
    assert registry_name("a/b:c", 1) == "a-b-c #1"
