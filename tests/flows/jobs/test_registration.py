"""A trained version stands in MLflow's registry once, under the name that Postgres records."""

from __future__ import annotations

from flows.jobs.registration import register_version, registry_name
from flows.jobs.tracking import tracking_client
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.catalog import catalog
from storage.postgres.jobs import jobs, publication
from storage.records.catalog.catalog import FileRole, NewFile, TrainedVersion
from storage.records.jobs.jobs import Job
from storage.settings import Settings
from storage.stores import Stores
from tests.storage.makers import a_job


def publish(stores: Stores) -> tuple[Job, int]:
    job = a_job(stores.database, name="a / very * odd name")
    stores.database.run(jobs.claim(job.id, 1, None))
    files = (NewFile(path="a.safetensors", role=FileRole.WEIGHTS, sha256="c" * 64, size=1),)
    new = TrainedVersion(
        model_name="a / very * odd name",
        base_model="starter",
        trained_words=("sks",),
        recipe={},
        evaluation=None,
        files=files,
    )
    return job, stores.database.run(publication.publish(job.id, 1, new)).id


def test_reconcile_registers_a_version_that_mlflow_missed_once(stores: Stores, tracked: Settings) -> None:
    _, version_id = publish(stores)
    stores.settings.mlflow = tracked.mlflow
    _, finding = reconcile_tracking(stores)
    assert "was not in MLflow's registry" in finding
    assert reconcile_tracking(stores) == []
    client = tracking_client(tracked)
    registered = stores.database.run(catalog.version_by_id(version_id)).registered_as
    assert registered is not None
    name, number = registered.rsplit("/", 1)
    assert client.get_model_version_by_alias(name, "current").version == number
    again = register_version(
        client, name=name, version_id=version_id, run_id=None, source="darkroom:/model-versions/1", tags={}
    )
    assert again == registered


def test_a_registry_name_has_only_signs_that_it_takes() -> None:
    assert registry_name("sks mug", 7) == "sks mug #7"
    assert registry_name("a/b:c", 1) == "a-b-c #1"
