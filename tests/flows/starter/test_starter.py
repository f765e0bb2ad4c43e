"""The committed starter: it loads with no argument, is small enough, and its judge keeps its card's promise."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors import safe_open
from transformers import CLIPTokenizer

import deployments.local
from flows.starter.judge import Judge
from flows.starter.judge_training import tell_apart
from flows.starter.renderer import render
from flows.starter.world import SCENES, held_out_subjects, picture_of
from storage.records.jobs.base_models import BaseModelCard
from tests.flows.diffusion.reference import drawn_by

STARTER = Path(deployments.local.__path__[0]) / "starter"


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    torch.set_num_threads(1)
    loaded = DiffusionPipeline.from_pretrained(str(STARTER))
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(STARTER / "judge")


def test_starter_loads_with_no_argument_and_draws(pipeline: DiffusionPipeline) -> None:
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)

    image = drawn_by(pipeline, "a photo of a red mug on the beach", num_inference_steps=3)[0]

    assert image.size == (64, 64)
    assert {part.dtype for part in parts} == {torch.float32}


def test_weights_take_at_most_16_mb_as_fp16() -> None:
    weights = list(STARTER.rglob("*.safetensors"))

    assert len(weights) == 5
    assert sum(path.stat().st_size for path in STARTER.rglob("*") if path.is_file()) <= 16_000_000
    for path in weights:
        with safe_open(path, framework="pt") as kept:
            assert {kept.get_slice(key).get_dtype() for key in kept.keys()} == {"F16"}  # noqa: SIM118


def test_text_encoder_file_has_clips_key_prefix() -> None:
    with safe_open(STARTER / "text_encoder" / "model.safetensors", framework="pt") as kept:
        assert all(key.startswith("text_model.") for key in kept.keys())  # noqa: SIM118


def test_tokenizer_length_equals_the_encoders_positions(pipeline: DiffusionPipeline) -> None:
    positions = pipeline.text_encoder.config.max_position_embeddings

    assert pipeline.tokenizer.model_max_length == positions
    assert CLIPTokenizer.from_pretrained(str(STARTER / "tokenizer")).model_max_length == positions


def test_samplers_made_from_its_schedule_do_not_clip_latents(pipeline: DiffusionPipeline) -> None:
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)

    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.config["clip_sample"] is False


def test_card_is_read_and_names_what_the_starter_knows() -> None:
    card = msgspec.json.decode((STARTER / "darkroom.json").read_bytes(), type=BaseModelCard)

    assert card.resolution == 64
    assert card.training.identifier in card.identifiers.free
    assert not set(card.identifiers.free) & set(card.identifiers.used)
    assert card.evaluation.scenes == SCENES


def test_free_identifiers_are_embedded_among_the_named_looks(pipeline: DiffusionPipeline) -> None:
    card = msgspec.json.decode((STARTER / "darkroom.json").read_bytes(), type=BaseModelCard)
    weight = pipeline.text_encoder.get_input_embeddings().weight.detach()
    free, used = (
        weight[[pipeline.tokenizer.convert_tokens_to_ids(word + "</w>") for word in words]].norm(dim=1).mean()
        for words in (card.identifiers.free, card.identifiers.used)
    )

    assert abs(free / used - 1) < 0.2


@pytest.mark.parametrize("queries", [40, pytest.param(100, marks=pytest.mark.soak)])
def test_judge_tells_unseen_subjects_of_one_class_and_colour_apart(judge: Judge, queries: int) -> None:
    """Among eight: one that tells nothing apart is right in an eighth."""
    assert tell_apart(judge, queries=queries, seed=1) >= 0.85


def test_judge_names_the_scenes_of_unseen_subjects(judge: Judge) -> None:
    rng = np.random.default_rng(3)
    pictures = [picture_of(subject, scene, rng) for subject in held_out_subjects() for scene in SCENES]

    found = judge.scene_probabilities([render(picture) for picture in pictures]).argmax(dim=1)

    truth = torch.tensor([judge.scenes.index(picture.scene) for picture in pictures])
    assert (found == truth).float().mean() >= 0.95
