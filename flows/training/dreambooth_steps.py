"""The steps of train-dreambooth; their order is in dreambooth.py.

All that the flow needs of torch is imported from here, before it claims a job: what cannot be imported fails no job.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.diffusion.devices import check_devices
from flows.diffusion.devices import this_machine as this_machine
from flows.diffusion.families.protocol import Components
from flows.diffusion.sampler import draw_images
from flows.jobs.registration import register
from flows.jobs.tracking import MLFLOW_UNAVAILABLE, tracking_client
from flows.jobs.tracking_facts import job_inputs, job_params
from flows.runs.retries import STORE_RETRIES
from flows.training.estimates.fits import check_fits
from flows.training.evaluation import (
    SEEDS_PER_SCENE,
    Evaluation,
    evaluation_recipe,
    measure,
    new_scenes,
    noise_drifts,
    split_images,
)
from flows.training.fit import check_released, fit
from flows.training.methods.lookup import method_named
from flows.training.metrics.embedders import open_embedders
from flows.training.metrics.grid import Row, draw_grid
from flows.training.metrics.judges import open_judge
from flows.training.metrics.standard_metrics import standard_metrics
from flows.training.photos.encodings import open_encodings
from flows.training.photos.latents import encode_for, encode_images, pixels_of_all
from flows.training.photos.materials import Materials
from flows.training.photos.prompts import prompt_warnings
from flows.training.regularization_steps import fetch_base_folder, fill_set
from flows.training.samples import store_samples
from flows.training.tracking.validation_images import validation_grid
from flows.training.work import TrainingWork
from flows.training.work import training_work as training_work
from storage.blobs.families import ModelFile, check_model_file
from storage.errors import DarkroomError, JobCannotSucceed, NotFound, StoreFailure, WeightsRefused
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.jobs import data_sets, job_files, jobs, publication
from storage.records.catalog.catalog import FileRole, ModelVersion, NewFile, NewImage, TrainedVersion
from storage.records.catalog.vocabulary import BASE_MODELS, FileType, ModelType
from storage.records.jobs.choices import TrainingMethod, catalogue_name
from storage.records.jobs.data_sets import content_hash
from storage.records.jobs.training import regularization_recipe

HOUR = 3600
# Live objects pass between the tasks: nothing of them is hashed for a cache or written anywhere.
LIVE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class Trained:
    """What the fit leaves for the later steps: the tuned components, and which of them changed."""

    def __init__(self, components: Components, changed: frozenset[str]) -> None:
        self.components, self.changed = components, changed


def link_tracking_run(work: TrainingWork) -> None:
    """Open the job's tracking run and tie job, flow run and tracking run to each other; goes on without MLflow."""
    run_id = work.tracking.open()
    work.tracking.params(job_params(work.job.row))
    if run_id is None:
        get_run_logger().warning("MLflow is unavailable; metrics are kept and sent later")
        return
    work.job.run(lambda: jobs.note_tracking_run(work.job.id, work.job.attempt, run_id))
    try:
        experiment = tracking_client(work.stores.settings).get_run(run_id).info.experiment_id
    except MLFLOW_UNAVAILABLE as error:
        get_run_logger().warning("no link to the run: %s", type(error).__name__)
        return
    address = f"{work.stores.settings.mlflow.ui_url}/#/experiments/{experiment}/runs/{run_id}"
    work.board.link("tracking-run", address, "The job's run in MLflow")


@task(name="prepare", timeout_seconds=HOUR, **LIVE, **STORE_RETRIES)
def prepare(work: TrainingWork) -> Materials:
    """The base model's folder and the photos, verified by hash."""
    work.job.report("prepare")
    rows = work.job.run(lambda: data_sets.images(work.request.data_set_id))
    if not rows or content_hash(rows) != work.recipe.data_set_hash:
        raise JobCannotSucceed(f"Data set {work.request.data_set_id} is gone or changed. Upload the photos again.")
    work.tracking.inputs(*job_inputs(work.job.row, len(rows)))
    for warning in work.request.warnings:
        get_run_logger().warning("job %s: %s", work.job.id, warning)
    try:
        folder = fetch_base_folder(work.stores, work.recipe.base_model_hash)
    except NotFound as error:
        raise JobCannotSucceed(str(error)) from error
    get_run_logger().info("job %s: %d photos, base model %s", work.job.id, len(rows), work.request.base_model)
    if all(row.step < work.recipe.steps for row in work.job.run(lambda: job_files.checkpoints(work.job.id))):
        for warning in check_fits(folder, work.recipe, work.device, work.stores.settings):
            get_run_logger().warning("job %s: %s", work.job.id, warning)
    return Materials(folder, rows, work.recipe, lambda sha256: work.stores.blobs.read(sha256))


@task(name="regularize", timeout_seconds=24 * HOUR, **LIVE, **STORE_RETRIES)
def regularize(work: TrainingWork, materials: Materials) -> list[Image.Image]:
    """The class images that hold the prior; those of an earlier job with the same recipe are used again."""
    if work.recipe.prior_loss_weight == 0:
        return []
    return fill_set(
        work.stores,
        regularization_recipe(work.recipe),
        materials.base_folder,
        boundary=lambda done, total: work.boundary("regularize", done, total),
    )


@task(name="fit", timeout_seconds=14 * 24 * HOUR, **LIVE)
def fit_model(work: TrainingWork, materials: Materials, regularization: Sequence[Image.Image]) -> Trained:
    """Train from the newest checkpoint. It waits for stores itself, so the task is not tried again."""
    work.job.report("fit", 0, work.recipe.steps)
    components = work.load_components(materials.base_folder)
    for warning in prompt_warnings(work.family, components, work.recipe, materials.prompts):
        get_run_logger().warning("job %s: %s", work.job.id, warning)
    # Those behind are kept out of the training, to measure its loss on.
    learned = slice(len(materials.photos) - work.recipe.validation_photos)
    encodings = open_encodings(work.stores, work.family, work.recipe)
    images = encode_for(
        work.recipe,
        work.family,
        components,
        materials.photos[learned],
        regularization,
        prompts=materials.prompts[learned],
        repeats=materials.repeats[learned],
        cache=encodings,
        sources=materials.sources[learned],
    )
    grid = validation_grid(work.stores, work.recipe, work.family, components, materials, work.job.check)
    newest = work.checkpoints.latest()
    work.resume_metrics(newest[0] if newest else 0)
    check_devices(components, work.device, "fit")
    changed = fit(
        work.recipe,
        work.family,
        components,
        images,
        recipe_hash=work.job.row.recipe_hash,
        newest=newest[1] if newest else None,
        checkpoints=work.checkpoints,
        work_folder=work.folder,
        watch=work.watch(components, grid),
        encodings=encodings,
    )
    return Trained(components, changed)


@task(name="evaluate", timeout_seconds=24 * HOUR, **LIVE, **STORE_RETRIES)
def evaluate(work: TrainingWork, materials: Materials, trained: Trained) -> tuple[Evaluation, tuple[NewImage, ...]]:
    """Subject fidelity, prompt fidelity and prior drift, beside the base's floor and the photos' ceiling.

    Also returns what the catalogue shows of the fine-tune: the pictures of the subject, stored.
    """
    check_released(trained.components)
    with work.measured("evaluate"):
        return _evaluated(work, materials, trained)


def _evaluated(work: TrainingWork, materials: Materials, trained: Trained) -> tuple[Evaluation, tuple[NewImage, ...]]:
    recipe = work.recipe
    judge = open_judge(materials.base_folder, recipe.evaluation_scenes)
    photos = pixels_of_all(materials.photos, recipe.resolution)
    scenes = new_scenes(recipe, photos, judge)
    wanted = evaluation_recipe(recipe, scenes)
    total = 2 * len(wanted.prompts)
    work.job.report("evaluate", 0, total)
    base = work.load_beside(materials.base_folder, trained.components, trained.changed)
    for components in (base, trained.components):
        check_devices(components, work.device, "evaluate")
    floor = fill_set(
        work.stores,
        wanted,
        materials.base_folder,
        components=base,
        boundary=lambda done, _: work.boundary("evaluate", done, total),
    )
    drawn: list[Image.Image] = []
    # In the batches in which the base has drawn, so that rounding is no difference between the two.
    for start in range(0, len(wanted.prompts), wanted.batch_size):
        work.boundary("evaluate", len(wanted.prompts) + start, total)
        rows = slice(start, start + wanted.batch_size)
        drawn += draw_images(work.family, trained.components, wanted.prompts[rows], wanted.seeds[rows], wanted.sampler)
    base_images, tuned_images = (split_images(images, recipe.resolution) for images in (floor, drawn))
    # The last of the set are of the plain class prompt.
    class_latents = encode_images(work.family, base, floor[-4:], recipe.resolution)
    drifts = noise_drifts(work.family, base, trained.components, class_latents, recipe.class_prompt)
    evaluation = measure(judge, photos, scenes, recipe.class_word, base_images, tuned_images, drifts)
    embedders = open_embedders(work.stores.settings.jobs.embedders_folder)
    prompts = wanted.prompts[: len(tuned_images.subject)]
    standard = standard_metrics(embedders, photos, prompts, base_images, tuned_images)
    evaluation = msgspec.structs.replace(evaluation, standard=standard)
    columns = max(1, len(scenes)) * SEEDS_PER_SCENE
    rows_of_grid = [
        Row("photos", materials.photos[:6]),
        Row("base model", floor[0:columns:SEEDS_PER_SCENE]),
        Row("fine-tuned", drawn[0:columns:SEEDS_PER_SCENE]),
    ]
    work.show_evaluation(evaluation, draw_grid(list(scenes), rows_of_grid))
    return evaluation, store_samples(work, wanted, drawn)


@task(name="export", timeout_seconds=6 * HOUR, **LIVE, **STORE_RETRIES)
def export(work: TrainingWork, trained: Trained) -> list[NewFile]:
    """The weights as files, read back and checked, their bytes stored by hash."""
    with work.measured("export"):
        return _exported(work, trained)


def _exported(work: TrainingWork, trained: Trained) -> list[NewFile]:
    work.job.report("export")
    check_devices(trained.components, work.device, "export")
    written = method_named(work.recipe.method).export(
        work.family,
        trained.components,
        trained.changed,
        work.recipe,
        work.job.row.recipe_hash,
        work.folder / "export",
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
    return [weights, *files]


@task(name="publish", timeout_seconds=HOUR, **LIVE)
def publish(work: TrainingWork, files: list[NewFile], evaluation: Evaluation, samples: tuple[NewImage, ...]) -> None:
    """One transaction: version, files, images, job, event. Then MLflow's registry, which reconcile repairs."""
    job, recipe = work.job, work.recipe
    # Before the job ends: an ended job's files are written by nobody.
    work.keep_metrics()
    new = TrainedVersion(
        model_name=work.request.model_name,
        type=TrainingMethod(recipe.method).model_type,
        base_model=catalogue_name(recipe.family, recipe.resolution),
        trained_words=(f"{recipe.identifier} {recipe.class_word}",),
        recipe=job.row.request,
        evaluation=msgspec.to_builtins(evaluation),
        files=tuple(files),
        images=samples,
        availability=work.request.availability,
        steps=recipe.steps,
    )

    def once() -> Script[ModelVersion]:
        # The commit may have been made and its response lost: a repeat finds the version.
        made = yield from catalog.version_of_job(job.id)
        return made or (yield from publication.publish(job.id, job.attempt, new))

    version = job.run(once)
    job.report("publish", 1, 1)
    job.reach("publish")
    get_run_logger().info("job %s published model version %d", job.id, version.id)
    try:
        # After the version is committed: until then a new attempt needs them.
        work.checkpoints.prune(0)
    except StoreFailure as error:
        get_run_logger().warning("the job's checkpoints stay: %s", type(error).__name__)
    work.tracking.flush()
    try:
        register(work.stores, tracking_client(work.stores.settings), version)
    except (*MLFLOW_UNAVAILABLE, DarkroomError, OSError) as error:
        get_run_logger().warning("MLflow's registry follows later: %s", type(error).__name__)


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
