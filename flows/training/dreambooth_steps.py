"""The steps of train-dreambooth; their order is in dreambooth.py.

All that the flow needs of torch is imported from here, before it claims a job: what cannot be imported fails no job.
"""

from __future__ import annotations

from prefect import get_run_logger

from flows.diffusion.devices import check_devices
from flows.diffusion.devices import this_machine as this_machine
from flows.jobs.memory_limit import limit_memory
from flows.jobs.tracking import MLFLOW_UNAVAILABLE, tracking_client
from flows.jobs.tracking_facts import job_inputs, job_params
from flows.training.estimates.fits import check_fits
from flows.training.fit import fit
from flows.training.metrics.validation_images import validation_grid
from flows.training.photos.encodings import open_encodings
from flows.training.photos.latents import encode_for
from flows.training.photos.materials import Materials, learned_rows
from flows.training.photos.prompts import prompt_warnings
from flows.training.regularization_steps import fetch_base_folder, fill_set
from flows.training.stages.evaluation_stage import evaluate as evaluate
from flows.training.stages.publication_stage import export as export
from flows.training.stages.publication_stage import publish as publish
from flows.training.stages.stage_results import ClassImages, Fitted, PreparedData
from flows.training.stages.stage_runs import Trained, TrainingStages
from flows.training.stages.summary import summarised as summarised
from flows.training.work import training_work as training_work
from storage.errors import JobCannotSucceed, NotFound
from storage.postgres.jobs import data_sets, job_files, jobs, sampled_sets
from storage.records.jobs.data_sets import content_hash
from storage.records.jobs.jobs import Stage
from storage.records.jobs.sampled_sets import SamplingRecipe
from storage.records.jobs.training import regularization_recipe


def link_tracking_run(run: TrainingStages) -> None:
    """Open the job's tracking run and tie job, flow run and tracking run to each other; goes on without MLflow."""
    work = run.work
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
    run.links["The job's run in MLflow"] = address


def prepare(run: TrainingStages) -> PreparedData:
    """The base model's folder and the photos, verified by hash. Every attempt does it: it prepares its machine."""
    inputs = {"base_model": run.work.recipe.base_model_hash, "data_set": run.work.recipe.data_set_hash}
    return run.run(Stage.PREPARE, inputs, PreparedData, lambda: _prepared(run), kept=False)


def _prepared(run: TrainingStages) -> PreparedData:
    work = run.work
    rows = work.job.run(lambda: data_sets.images(work.request.data_set_id))
    if not rows or content_hash(rows) != work.recipe.data_set_hash:
        raise JobCannotSucceed(f"Data set {work.request.data_set_id} is gone or changed. Upload the photos again.")
    learned = learned_rows([row.sha256 for row in rows], work.recipe.validation_photos)
    work.tracking.inputs(*job_inputs(work.job.row, learned))
    if work.request.warnings:
        # Not themselves: they name photos, and Prefect's logs stay when the data set is deleted.
        where = f"GET /api/v1/training-jobs/{work.job.id} has them in request.warnings"
        get_run_logger().warning("job %s: warnings: %d; %s", work.job.id, len(work.request.warnings), where)
    try:
        folder = fetch_base_folder(work.stores, work.recipe.base_model_hash)
    except NotFound as error:
        raise JobCannotSucceed(str(error)) from error
    get_run_logger().info("job %s: %d photos, base model %s", work.job.id, len(rows), work.request.base_model)
    if all(row.step < work.recipe.last_step for row in work.job.run(lambda: job_files.checkpoints(work.job.id))):
        prompts = len({row.caption for row in rows})
        for warning in check_fits(folder, work.recipe, work.device, work.room, len(rows), prompts):
            get_run_logger().warning("job %s: %s", work.job.id, warning)
    run.materials = Materials(folder, rows, work.recipe, run.read)
    return PreparedData(
        base_model_hash=work.recipe.base_model_hash, data_set_hash=work.recipe.data_set_hash, photos=len(rows)
    )


def regularize(run: TrainingStages, prepared: PreparedData) -> ClassImages:
    """The class images that hold the prior; those of an earlier job with the same recipe are used again."""
    recipe = regularization_recipe(run.work.recipe)
    inputs = {
        "base_model": prepared.base_model_hash,
        "set": recipe.key(),
        "count": len(recipe.prompts),
        "used": run.work.recipe.prior_loss_weight > 0,
    }
    return run.run(Stage.REGULARIZE, inputs, ClassImages, lambda: _class_images(run, recipe))


def _class_images(run: TrainingStages, recipe: SamplingRecipe) -> ClassImages:
    work = run.work
    if work.recipe.prior_loss_weight == 0:
        return ClassImages(key="", images=())
    fill_set(
        work.stores,
        recipe,
        run.of_this_machine.base_folder,
        boundary=lambda done, total: work.boundary("regularize", done, total),
    )
    rows = work.job.run(lambda: sampled_sets.images(recipe))
    return ClassImages(key=recipe.key(), images=tuple(row.sha256 for row in rows))


def fit_model(run: TrainingStages, prepared: PreparedData, class_images: ClassImages) -> Fitted:
    """Train from the newest checkpoint. It waits for stores itself, so the task is not tried again."""
    work, recipe = run.work, run.work.recipe
    inputs = {
        "recipe": work.job.row.recipe_hash,
        # A retry that ends at a chosen step has the recipe of the whole.
        "steps": recipe.last_step,
        "base_model": prepared.base_model_hash,
        "data_set": prepared.data_set_hash,
        "class_images": class_images.images,
    }
    run.trains = lambda: _trained(run, class_images)
    fitted = run.run(Stage.FIT, inputs, Fitted, lambda: _fitted(run), retried=False)
    if Stage.FIT in run.found:
        work.resume_metrics(fitted.step)
    return fitted


def _fitted(run: TrainingStages) -> Fitted:
    work = run.work
    run.model()
    # The last step is kept always, by a fit that runs through.
    newest = work.job.run(lambda: job_files.checkpoints(work.job.id))[0]
    pace = work.pace
    return Fitted(
        step=newest.step,
        checkpoint=newest.sha256,
        steps=pace.steps,
        step_seconds=pace.step_seconds,
        pause_seconds=pace.pause_seconds,
    )


def _trained(run: TrainingStages, class_images: ClassImages) -> Trained:
    work, materials = run.work, run.of_this_machine
    # Phases of their own, as `resume` and `fit` are: what a step needs less memory with helps neither of the two.
    work.job.report("load")
    components = work.load_components(materials.base_folder)
    for warning in prompt_warnings(work.family, components, work.recipe, materials.prompts, materials.positions):
        get_run_logger().warning("job %s: %s", work.job.id, warning)
    work.job.report("encode")
    learned = slice(materials.learned)
    encodings = open_encodings(work.stores, work.family, work.recipe)
    # Also of photos that are held out: their captions may name somebody.
    encodings.own(materials.prompts, materials.sources)
    images = encode_for(
        work.recipe,
        work.family,
        components,
        materials.photos[learned],
        run.images_of(class_images),
        prompts=materials.prompts[learned],
        repeats=materials.repeats[learned],
        cache=encodings,
        sources=materials.sources[learned],
    )
    grid = validation_grid(work.stores, work.recipe, work.family, components, materials, work.job.check, encodings)
    newest = work.checkpoints.latest()
    if Stage.FIT not in run.found:  # else they were taken over when it was found
        work.resume_metrics(newest[0] if newest else 0)
    # Adapters, averages and weights that change their layout: no smaller step makes room for them.
    work.job.report("setup")
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
    limit_memory(work.stores.settings.jobs.memory_limit_bytes)
    return Trained(components, changed)
