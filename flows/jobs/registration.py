"""Trained versions in MLflow's registry: each once, under a name that Postgres records."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.jobs.tracking import JOB_TAG
from storage.errors import NotFound
from storage.postgres.catalog import catalog
from storage.postgres.jobs import jobs
from storage.records.catalog.catalog import ModelVersion
from storage.stores import Stores

VERSION_TAG = "darkroom.model_version_id"
ALIAS = "current"


def register(stores: Stores, client: MlflowClient, version: ModelVersion) -> str:
    """Put a trained version into MLflow's registry, once, and record its name there. Raises when MLflow is
    unavailable."""
    if version.job_id is None:
        raise NotFound(f"Model version {version.id} was uploaded, so no tracking run made it. Register trained ones.")
    model = stores.database.run(catalog.model_by_id(version.model_id))
    job = stores.database.run(jobs.get(version.job_id))
    name = register_version(
        client,
        name=registry_name(model.name, model.id),
        version_id=version.id,
        run_id=job.tracking_run_id,
        # A reference for people, not a place that MLflow can load from: the bytes are in the blob store.
        source=f"darkroom:/model-versions/{version.id}",
        tags={JOB_TAG: str(version.job_id), "base_model": str(job.request["base_model"])},
    )
    # Last. A death before it registers again, which finds the same version by its tag.
    stores.database.run(catalog.note_registered(version.id, name))
    return name


def register_version(
    client: MlflowClient, *, name: str, version_id: int, run_id: str | None, source: str, tags: Mapping[str, str]
) -> str:
    """The registry's name for a model version, NAME/NUMBER: found by its name and our version id, made when it is new.

    The alias `current` moves to it (MLflow keeps the word latest to itself). Raises MlflowException when MLflow is
    unavailable.
    """
    found = client.search_model_versions(f"name = '{name}' and tags.`{VERSION_TAG}` = '{version_id}'")
    if found:
        client.set_registered_model_alias(name, ALIAS, found[0].version)
        return f"{found[0].name}/{found[0].version}"
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        # Asking first would still race with another process.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=source,
        run_id=run_id,
        tags={VERSION_TAG: str(version_id), **dict(tags)},
        await_creation_for=10,
    )
    client.set_registered_model_alias(name, ALIAS, version.version)
    return f"{name}/{version.version}"


def registry_name(model_name: str, model_id: int) -> str:
    """What MLflow's registry calls a model: its name without the signs a registry refuses, and its id."""
    plain = "".join(sign if sign.isalnum() or sign in "-_ ." else "-" for sign in model_name).strip()
    # Names of models are not unique in the catalogue; the registry's have to be.
    return f"{plain} #{model_id}"
