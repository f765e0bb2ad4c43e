"""Trained versions in MLflow's registry: each once, under a name that Postgres records."""

from __future__ import annotations

from mlflow.tracking import MlflowClient

from flows.jobs.tracking import (
    JOB_TAG,
    register_version,
    registry_name,
)
from storage.errors import (
    NotFound,
)
from storage.postgres.catalog import catalog
from storage.postgres.jobs import jobs
from storage.records.catalog.catalog import ModelVersion
from storage.stores import Stores


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
