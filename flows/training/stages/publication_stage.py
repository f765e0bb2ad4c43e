"""The last stages: the weights as files, and the version that has them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from prefect import get_run_logger

from flows.diffusion.devices import check_devices
from flows.jobs.registration import register
from flows.jobs.tracking import MLFLOW_UNAVAILABLE, tracking_client
from flows.training.methods.lookup import method_named
from flows.training.stages.stage_results import Evaluated, Exported, Fitted, PublishedVersion
from flows.training.stages.stage_runs import TrainingStages
from flows.training.work import TrainingWork
from storage.blobs.families import ModelFile, check_model_file
from storage.errors import DarkroomError, StoreFailure, WeightsRefused
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.jobs import job_stages, publication
from storage.records.catalog.catalog import FileRole, ModelVersion, NewFile, TrainedVersion
from storage.records.catalog.vocabulary import BASE_MODELS, FileType, ModelType
from storage.records.jobs.choices import TrainingMethod, catalogue_name
from storage.records.jobs.jobs import Stage


def export(run: TrainingStages, fitted: Fitted) -> Exported:
    """The weights as files, read back and checked, their bytes stored by hash."""
    inputs = {
        "checkpoint": fitted.checkpoint,
        "recipe": run.work.job.row.recipe_hash,
        "dtype": run.work.recipe.export_dtype,
    }
    return run.run(Stage.EXPORT, inputs, Exported, lambda: _exported(run))


def _exported(run: TrainingStages) -> Exported:
    work, trained = run.work, run.model()
    check_devices(trained.components, work.device, "export")
    written = method_named(work.recipe.method).export(
        work.family,
        trained.components,
        trained.changed,
        work.recipe,
        work.job.row.recipe_hash,
        work.room.export_folder(trained.components.folder),
        between_files=lambda: work.boundary("export", 0, 0),
    )
    files = [_stored(work, file, name, FileRole.FOLDER) for name, file in written.folder.items()]
    found = _looked_at(work, written.weights, TrainingMethod(work.recipe.method).model_type)
    weights = msgspec.structs.replace(
        _stored(work, written.weights, written.weights_name, FileRole.WEIGHTS),
        hashes=written.hashes,
        checked=found.checked,
        fp=found.fp,
    )
    return Exported(files=(weights, *files))


def publish(run: TrainingStages, evaluated: Evaluated, exported: Exported) -> PublishedVersion:
    """One transaction: version, files, images, job, event. Then MLflow's registry, which reconcile repairs."""
    inputs = {"files": [file.sha256 for file in exported.files], "grid": evaluated.grid}
    made = run.run(
        Stage.PUBLISH, inputs, PublishedVersion, lambda: _published(run, evaluated, exported), kept=False, retried=False
    )
    run.version_id = made.version_id
    return made


def _published(run: TrainingStages, evaluated: Evaluated, exported: Exported) -> PublishedVersion:
    work, job, recipe = run.work, run.work.job, run.work.recipe
    # Before the job ends: an ended job's files are written by nobody.
    work.keep_metrics()
    new = TrainedVersion(
        model_name=work.request.model_name,
        type=TrainingMethod(recipe.method).model_type,
        base_model=catalogue_name(recipe.family, recipe.resolution),
        trained_words=(f"{recipe.identifier} {recipe.class_word}",),
        recipe=job.row.request,
        evaluation=msgspec.to_builtins(evaluated.evaluation),
        files=exported.files,
        images=evaluated.samples,
        availability=work.request.availability,
        steps=recipe.last_step,
    )

    def once() -> Script[ModelVersion]:
        # The commit may have been made and its response lost: a repeat finds the version.
        made = yield from catalog.version_of_job(job.id)
        if made is None:
            made = yield from publication.publish(job.id, job.attempt, new)
            # From here on the version names them.
            yield from job_stages.release_blobs(job.id)
        return made

    version = job.run(once)
    job.report("publish", 1, 1)
    job.reach("publish")
    get_run_logger().info("job %s published model version %d", job.id, version.id)
    try:
        # After the version is committed: until then a new attempt needs them.
        work.checkpoints.prune(0)
    except StoreFailure as error:
        get_run_logger().warning("the job's checkpoints stay: %s", type(error).__name__)
    try:
        work.tracking.flush()
        register(work.stores, tracking_client(work.stores.settings), version)
    except (*MLFLOW_UNAVAILABLE, DarkroomError, OSError) as error:
        get_run_logger().warning("MLflow's registry follows later: %s", type(error).__name__)
    return PublishedVersion(version_id=version.id)


def _looked_at(work: TrainingWork, file: Path, kind: ModelType) -> ModelFile:
    """What the catalogue says of a file is found in it, as for an uploaded one. A base may differ from its family."""
    family = BASE_MODELS.get(catalogue_name(work.recipe.family, work.recipe.resolution), "other")
    try:
        return check_model_file(file, family, kind, FileType.MODEL)
    except WeightsRefused:
        return check_model_file(file, "other", kind, FileType.MODEL)


def _stored(work: TrainingWork, file: Path, path: str, role: FileRole) -> NewFile:
    work.job.check()
    blob = work.stores.blobs.put_file(file)
    return NewFile(path=path, role=role, sha256=blob.sha256, size=blob.size)
