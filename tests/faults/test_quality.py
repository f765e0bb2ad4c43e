"""The main job on the real starter model: the subject is in the pictures, and the scenes are still obeyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deployments.base_models.cards import read_card
from deployments.local.seed import STARTER_FOLDER
from flows.diffusion.sampler import draw_images
from flows.starter.networks import STARTER_TRAINING
from flows.starter.renderer import render_photos
from flows.starter.world import held_out_subjects
from flows.training.evaluation import (
    Drifts,
    evaluation_recipe,
    measure,
    new_scenes,
    split_images,
)
from flows.training.fit import fit
from flows.training.metrics.judges import open_judge
from flows.training.photos.latents import TrainingImages, encode_images
from flows.training.photos.pictures import SquarePixels
from storage.records.jobs.sampled_sets import SCENES, SEEDS_PER_SCENE, SamplerSettings
from tests.faults.bench import Bench
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine

LESS: dict[str, Any] = {
    "steps": 80,
    "batch_size": 4,
    "seed": 1,
    "prior_loss_weight": 0.0,
    "checkpoint_every": 80,
    "sampler": SamplerSettings(steps=8, guidance_scale=3.0),
}
"""Less than the default, and no class images: with each of four seeds a subject is above the bound all the same."""


def test_a_subject_never_seen_before_is_in_new_scenes(tmp_path: Path) -> None:
    """What the job computes, without the platform: the other tests of this folder have one, with a tiny model."""
    torch.set_num_threads(1)
    card, subject = read_card(STARTER_FOLDER), held_out_subjects()[0]
    rates = {
        name: getattr(STARTER_TRAINING, name)
        for name in ("learning_rate", "text_encoder_learning_rate", "token_learning_rate")
    }
    scenes = tuple(card.evaluation.scenes)
    wanted = recipe(class_word=subject.class_word, evaluation_scenes=scenes, **rates, **LESS)
    photos = [photo for _, photo in render_photos(subject, count=4, seed=100)]
    base, tuned, judge = FAMILY.load(STARTER_FOLDER), FAMILY.load(STARTER_FOLDER), open_judge(STARTER_FOLDER, scenes)
    shown = SquarePixels(photos, wanted.resolution)
    new = new_scenes(wanted, shown, judge)[:2]
    drawn = evaluation_recipe(wanted, new)

    fit(
        wanted,
        FAMILY,
        tuned,
        TrainingImages(encode_images(FAMILY, tuned, photos, wanted.resolution), None),
        recipe_hash=wanted.fingerprint(),
        newest=None,
        checkpoints=KeptCheckpoints(tmp_path / "kept"),
        work_folder=tmp_path,
    )

    before, after = (
        split_images(draw_images(FAMILY, parts, drawn.prompts, drawn.seeds, drawn.sampler), wanted.resolution)
        for parts in (base, tuned)
    )
    found = measure(judge, shown, new, subject.class_word, before, after, Drifts(0.0, 0.0))
    floor, ceiling = found.subject_fidelity_base, found.subject_fidelity_photos
    assert floor is not None
    assert ceiling is not None
    assert floor < ceiling, found
    assert (found.subject_fidelity or 0.0) >= (floor + ceiling) / 2, found
    assert (found.prompt_accuracy or 0.0) >= 0.8 * (found.prompt_accuracy_base or 1.0), found
    assert found.images == 2 * SEEDS_PER_SCENE


@pytest.mark.soak
@pytest.mark.parametrize("number", [0, 1, 2])
def test_three_subjects_never_seen_before_are_each_in_new_scenes(bench: Bench, number: int) -> None:
    subject = held_out_subjects()[number]
    data_set = bench.upload(subject, seed=100 + number)
    job_id = bench.submit(**bench.starter_defaults(), dataSetId=data_set, classWord=subject.class_word)
    bench.weights(job_id)
    figures = bench.model_version(job_id)["evaluation"]
    figures_shown = f"subject {number} ({subject.class_word}): {figures}"
    floor, ceiling = figures["subjectFidelityBase"], figures["subjectFidelityPhotos"]
    assert floor < ceiling, figures_shown
    assert figures["subjectFidelity"] >= (floor + ceiling) / 2, figures_shown
    assert figures["promptAccuracy"] >= 0.8 * figures["promptAccuracyBase"]
    assert figures["classSimilarity"] is not None
    assert figures["images"] == SCENES * SEEDS_PER_SCENE
