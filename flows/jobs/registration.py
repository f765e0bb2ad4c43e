"""Trained versions in MLflow's registry: each once, under a name that Postgres records, and loadable by MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from mlflow.entities import LifecycleStage, LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_USER

from flows.jobs.registry.descriptions import describe_model, describe_version
from flows.jobs.registry.saved_models import SavedModel, save_model
from flows.jobs.registry.withdrawal import ALIAS
from flows.jobs.tracking import EXPERIMENT, JOB_TAG, experiment_named
from storage.errors import NotFound
from storage.postgres.catalog import catalog
from storage.postgres.jobs import base_models, jobs
from storage.records.catalog.catalog import FileRole, Model, ModelVersion
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingJobRequest, TrainingRecipe
from storage.stores import Stores

VERSION_TAG = "darkroom.model_version_id"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
"""The member of a version that says it is an adapter: what diffusers calls one."""


@dataclass(frozen=True)
class Entry:
    """What a version is in the registry: the name there, what its pages say, the run that made it, and its folder."""

    name: str
    version_id: int
    run_id: str | None
    tags: Mapping[str, str]
    model_description: str
    description: str
    saved: SavedModel


def register(stores: Stores, client: MlflowClient, version: ModelVersion) -> str:
    """Put a trained version into MLflow's registry, once, and record its name there.

    Raises MlflowException and its kin when MLflow is unavailable, NotFound when the version's base is gone, and
    StoreFailure.
    """
    if version.job_id is None:
        raise NotFound(f"Model version {version.id} was uploaded, so no tracking run made it. Register trained ones.")
    model = stores.database.run(catalog.model_by_id(version.model_id))
    job = stores.database.run(jobs.get(version.job_id))
    with tempfile.TemporaryDirectory() as folder:
        name = register_version(client, entry_of(stores, model, version, job, Path(folder)))
    # Last. A death before it registers again, which finds the same version by its tag.
    stores.database.run(catalog.note_registered(version.id, name))
    return name


def entry_of(stores: Stores, model: Model, version: ModelVersion, job: Job, folder: Path) -> Entry:
    """What the registry is to say of a version; an adapter's file is put into `folder`."""
    request = msgspec.convert(job.request, TrainingJobRequest)
    name, api = registry_name(model.name, model.id), stores.settings.api.public_url
    return Entry(
        name=name,
        version_id=version.id,
        run_id=job.tracking_run_id,
        tags={
            JOB_TAG: str(job.id),
            MLFLOW_USER: str(job.account_id),
            "base_model": request.base_model,
            "method": request.recipe.method,
            "model_type": str(model.type),
            "trained_words": ", ".join(version.trained_words),
        },
        model_description=describe_model(model, name, request, api),
        description=describe_version(version, request, api),
        saved=_saved(stores, version, request.recipe, folder),
    )


def register_version(client: MlflowClient, entry: Entry) -> str:
    """The registry's name for a model version, NAME/NUMBER: found by its name and its job, made when it is new.

    The alias `current` moves to it (MLflow keeps the word latest to itself). Raises MlflowException when MLflow is
    unavailable.
    """
    found = client.search_model_versions(f"name = '{entry.name}' and {_wanted(entry)}")
    if found:
        client.set_registered_model_alias(entry.name, ALIAS, found[0].version)
        return f"{found[0].name}/{found[0].version}"
    run = _active_run(client, entry.run_id)
    entry = replace(entry, run_id=None if run is None else entry.run_id)
    tags = {VERSION_TAG: str(entry.version_id), **entry.tags}
    try:
        client.create_registered_model(entry.name, {"base_model": tags["base_model"]}, entry.model_description)
    except MlflowException as error:
        # Asking first would still race with another process.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = _logged_model(client, entry, tags, run)
    version = client.create_model_version(
        entry.name,
        source=f"models:/{logged.model_id}",
        run_id=entry.run_id,
        tags=tags,
        description=entry.description,
        await_creation_for=10,
        model_id=logged.model_id,
    )
    client.set_registered_model_alias(entry.name, ALIAS, version.version)
    return f"{entry.name}/{version.version}"


def registry_name(model_name: str, model_id: int) -> str:
    """What MLflow's registry calls a model: its name without the signs a registry refuses, and its id."""
    plain = "".join(sign if sign.isalnum() or sign in "-_ ." else "-" for sign in model_name).strip()
    # Names of models are not unique in the catalogue; the registry's have to be.
    return f"{plain} #{model_id}"


def _active_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run that made a version; None when somebody has deleted it, or MLflow has lost it: the model stands alone."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _logged_model(client: MlflowClient, entry: Entry, tags: Mapping[str, str], run: Run | None) -> LoggedModel:
    """The version's folder in MLflow, and on the page of the run that made it."""
    experiment = experiment_named(client, EXPERIMENT)
    # One that a process left that died before it had registered it.
    made = client.search_logged_models([experiment], _wanted(entry), max_results=1)
    logged = made[0] if made else client.create_logged_model(experiment, "model", entry.run_id, dict(tags))
    if logged.status is not LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            save_model(entry.saved, Path(folder) / "model", run_id=entry.run_id, model_id=logged.model_id)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if run is not None:
        outputs = run.outputs
        # MLflow refuses one that is there.
        if outputs is None or logged.model_id not in [one.model_id for one in outputs.model_outputs]:
            client.log_outputs(str(run.info.run_id), [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _wanted(entry: Entry) -> str:
    # Not by our version's number: an MLflow that several installations share has it more than once.
    return f"tags.`{JOB_TAG}` = '{entry.tags[JOB_TAG]}'"


def _saved(stores: Stores, version: ModelVersion, recipe: TrainingRecipe, folder: Path) -> SavedModel:
    rows = stores.database.run(catalog.files(version.id))
    files = {row.path: row.sha256 for row in rows if row.role is FileRole.FOLDER}
    adapter: Path | None = None
    if ADAPTER_FILE in files:
        adapter = folder / ADAPTER_FILE
        stores.blobs.fetch(files[ADAPTER_FILE], adapter)
        files = {file.path: file.sha256 for file in stores.database.run(base_models.files_of(recipe.base_model_hash))}
    return SavedModel(
        files=files,
        blobs_url=stores.settings.blobs.url,
        resolution=recipe.resolution,
        sampler=recipe.sampler,
        example=recipe.instance_prompt,
        adapter=adapter,
        base_folder=str(stores.cache_folder / "base-models" / recipe.base_model_hash),
        held_in=recipe.held_in,
    )
