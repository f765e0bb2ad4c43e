"""The stage evaluate: base and fine-tune draw the same prompts, and a judge compares both with the photos."""

from __future__ import annotations

import msgspec
from PIL import Image
from prefect import get_run_logger

from flows.diffusion.devices import check_devices
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import draw_images
from flows.training.evaluation import (
    base_beside,
    evaluation_recipe,
    measure,
    new_scenes,
    noise_drifts,
    split_images,
    without_undefined,
)
from flows.training.fit import check_released
from flows.training.metrics.embedders import check_embedders, open_embedders
from flows.training.metrics.grid import Row, draw_grid
from flows.training.metrics.judges import open_judge
from flows.training.metrics.standard_metrics import standard_metrics
from flows.training.photos.latents import encode_images
from flows.training.photos.pictures import SquarePixels
from flows.training.regularization_steps import fill_set
from flows.training.samples import store_samples
from flows.training.stages.stage_results import Evaluated, Fitted, PreparedData
from flows.training.stages.stage_runs import TrainingStages
from storage.records.jobs.jobs import Stage
from storage.records.jobs.sampled_sets import SEEDS_PER_SCENE


def evaluate(run: TrainingStages, prepared: PreparedData, fitted: Fitted) -> Evaluated:
    """Subject fidelity, prompt fidelity and prior drift, beside the base's floor and the photos' ceiling.

    Also returns what the catalogue shows of the fine-tune: the pictures of the subject, stored.
    """
    work = run.work
    inputs = {
        "checkpoint": fitted.checkpoint,
        "recipe": work.job.row.recipe_hash,
        "base_model": prepared.base_model_hash,
        "data_set": prepared.data_set_hash,
        "embedders": sorted(check_embedders(work.stores.settings.jobs.embedders_folder)),
    }
    evaluated = run.run(Stage.EVALUATE, inputs, Evaluated, lambda: _evaluated(run))
    if Stage.EVALUATE in run.found:
        picture = work.job.with_retries(lambda: work.stores.blobs.read(evaluated.grid))
        work.show_evaluation(evaluated.evaluation, picture)
    return evaluated


def _evaluated(run: TrainingStages) -> Evaluated:
    work, materials, trained = run.work, run.of_this_machine, run.model()
    check_released(trained.components)
    recipe = work.recipe
    judge = open_judge(materials.base_folder, recipe.evaluation_scenes)
    photos = SquarePixels(materials.photos, recipe.resolution)
    scenes = new_scenes(recipe, photos, judge)
    wanted = evaluation_recipe(recipe, scenes)
    total = 2 * len(wanted.prompts)
    work.job.report("evaluate", 0, total)
    base = base_beside(work.family, materials.base_folder, trained.components, trained.changed, recipe.held_in)
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
    evaluation, undefined = without_undefined(msgspec.structs.replace(evaluation, standard=standard))
    if undefined:
        get_run_logger().warning(
            "job %s: the evaluation has no number for %s; look at the samples before the version is used",
            work.job.id,
            ", ".join(undefined),
        )
    columns = max(1, len(scenes)) * SEEDS_PER_SCENE
    rows_of_grid = [
        Row("photos", materials.photos[:6]),
        Row("base model", floor[0:columns:SEEDS_PER_SCENE]),
        Row("fine-tuned", drawn[0:columns:SEEDS_PER_SCENE]),
    ]
    grid = work.show_evaluation(evaluation, png(draw_grid(list(scenes), rows_of_grid)))
    return Evaluated(evaluation=evaluation, grid=grid, samples=store_samples(work, wanted, drawn))
