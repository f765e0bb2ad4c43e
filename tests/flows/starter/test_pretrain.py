"""Pretraining end to end at tiny sizes: it writes a folder that loads, and an interrupted one ends with equal bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from flows.starter.judge import TINY_JUDGE, Judge, JudgeFilesMissing
from flows.starter.networks import TINY, write_tiny_model
from flows.starter.pretrain_steps import Plan, learn_to_draw, learn_to_judge, learn_to_see, set_up
from flows.starter.schedules import Schedule
from tests.flows.diffusion.reference import drawn_by

SHORT = Schedule(steps=4, learning_rate=1e-3, warmup=1, save_every=2)
PLAN = Plan(
    pictures=40,
    autoencoder_pictures=40,
    rival_groups=4,
    test_queries=2,
    autoencoder=SHORT,
    diffusion=SHORT,
    classifier=SHORT,
    embedder=SHORT,
    batch_size=4,
    sizes=TINY,
    judge_sizes=TINY_JUDGE,
)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def make(out: Path, state: Path, plan: Plan = PLAN) -> dict[str, float]:
    """What the flow does, without Prefect around it."""
    bench = set_up(out, state, plan)
    measured = learn_to_see(bench, state, plan) | learn_to_judge(bench, out, state, plan)
    learn_to_draw(bench, out, state, plan)
    return measured


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("unbroken")
    make(folder / "model", folder / "state")
    return folder / "model"


def test_interrupted_pretraining_ends_with_equal_bytes(unbroken: Path, tmp_path: Path) -> None:
    interrupted = replace(PLAN, diffusion=replace(SHORT, save_every=3))
    bench = set_up(tmp_path / "model", tmp_path / "state", interrupted)
    learn_to_see(bench, tmp_path / "state", interrupted)
    assert (tmp_path / "state" / "autoencoder.safetensors").is_file()

    make(tmp_path / "model", tmp_path / "state", interrupted)

    assert digests(tmp_path / "model") == digests(unbroken)


def test_other_seed_gives_other_weights(unbroken: Path, tmp_path: Path) -> None:
    make(tmp_path / "model", tmp_path / "state", replace(PLAN, seed=1))

    assert digests(tmp_path / "model")[WEIGHTS] != digests(unbroken)[WEIGHTS]


def test_written_folder_is_a_pipeline_that_draws(unbroken: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(str(unbroken))
    pipeline.set_progress_bar_config(disable=True)

    image = drawn_by(pipeline, "a photo of a mug", num_inference_steps=2)[0]

    assert image.size == (64, 64)
    assert pipeline.vae.config.scaling_factor != 0.18215


def test_tiny_model_has_the_starters_layout(unbroken: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path, seed=3)

    assert set(digests(tmp_path)) == set(digests(unbroken))


def test_folder_without_a_judge_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(JudgeFilesMissing, match=r"config.json is missing"):
        Judge.load(tmp_path)
