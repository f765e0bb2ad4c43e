"""The stages of pretrain-starter; the flow is in pretrain.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from transformers import CLIPTokenizer

from flows.starter.judge import Judge, JudgeSizes
from flows.starter.judge_training import (
    classifier_accuracies,
    render_subjects,
    tell_apart,
    train_classifier,
    train_embedder,
    with_reconstructions,
)
from flows.starter.model_training import (
    Views,
    cache_latents,
    kept_views,
    reconstruction_error,
    train_autoencoder,
    train_diffusion,
)
from flows.starter.networks import (
    STARTER,
    STARTER_SAMPLER,
    STARTER_TRAINING,
    Sizes,
    TrainableParts,
    make_parts,
    save_parts,
    write_facts,
)
from flows.starter.schedules import (
    AUTOENCODER_SCHEDULE,
    CLASSIFIER_SCHEDULE,
    DIFFUSION_SCHEDULE,
    EMBEDDER_SCHEDULE,
    SEED,
    Schedule,
)
from flows.starter.tokenizer import write_tokenizer

JUDGE_SIZES = JudgeSizes()


@dataclass(frozen=True)
class Plan:
    """How much of everything: numbers of pictures, steps of each stage, sizes of networks. `seed` moves them all."""

    seed: int = SEED
    pictures: int = 20_000
    autoencoder_pictures: int = 6_000
    rival_groups: int = 500
    test_queries: int = 500
    autoencoder: Schedule = AUTOENCODER_SCHEDULE
    diffusion: Schedule = DIFFUSION_SCHEDULE
    classifier: Schedule = CLASSIFIER_SCHEDULE
    embedder: Schedule = EMBEDDER_SCHEDULE
    batch_size: int = 32
    sizes: Sizes = STARTER
    judge_sizes: JudgeSizes = JUDGE_SIZES

    def seed_of(self, stage: str) -> int:
        """The seed of a stage, so that no two stages draw the same numbers."""
        return (
            self.seed + {"networks": 1, "views": 7, "autoencoder": 11, "diffusion": 21, "judge": 31, "test": 41}[stage]
        )


STARTER_PLAN = Plan()


@dataclass(frozen=True)
class Bench:
    """Everything a stage works on, rebuilt from the state folder: fresh or finished parts, the views, the words."""

    parts: TrainableParts
    views: Views
    tokenizer: CLIPTokenizer


def set_up(out: Path, state: Path, plan: Plan) -> Bench:
    """Write the vocabulary to `out`, render the views or read them from `state`, and make the parts from the seed."""
    tokenizer = write_tokenizer(out / "tokenizer")
    parts = make_parts(plan.sizes, tokenizer, plan.seed_of("networks"))
    return Bench(parts, kept_views(state, plan.pictures, plan.seed_of("views")), tokenizer)


def learn_to_see(bench: Bench, state: Path, plan: Plan) -> dict[str, float]:
    """Train the autoencoder in place; returns its mean absolute error on the last views."""
    first = Views(bench.views.pictures[: plan.autoencoder_pictures], bench.views.pixels[: plan.autoencoder_pictures])
    seed = plan.seed_of("autoencoder")
    train_autoencoder(bench.parts.autoencoder, first, plan.autoencoder, seed=seed, state=state)
    return {"autoencoder_l1": reconstruction_error(bench.parts.autoencoder, bench.views)}


def learn_to_judge(bench: Bench, out: Path, state: Path, plan: Plan) -> dict[str, float]:
    """Train both networks of the judge, write its folder, and measure it on what it never saw."""
    views, seed = bench.views, plan.seed_of("judge")
    judge = Judge.fresh(plan.judge_sizes, seed)
    held_back = len(views.pictures) // 10
    shown = with_reconstructions(bench.parts.autoencoder, views.pixels[:-held_back])
    train_classifier(judge, Views(views.pictures[:-held_back], shown), plan.classifier, seed=seed, state=state)
    rivals = render_subjects(plan.rival_groups, seed)
    rivals = with_reconstructions(bench.parts.autoencoder, rivals.flatten(0, 1)).reshape(rivals.shape)
    train_embedder(judge, rivals, plan.embedder, seed=seed, state=state)
    judge.save(out / "judge")
    unseen = Views(views.pictures[-held_back:], views.pixels[-held_back:])
    shares = {f"judge_{name}": share for name, share in classifier_accuracies(judge, unseen).items()}
    return shares | {"judge_tells_apart": tell_apart(judge, queries=plan.test_queries, seed=plan.seed_of("test"))}


def learn_to_draw(bench: Bench, out: Path, state: Path, plan: Plan) -> None:
    """Train UNet and text encoder in place on the cached latents of the views, and write the pipeline's folder."""
    noising = cache_latents(bench.parts.autoencoder, bench.views, bench.tokenizer)
    train_diffusion(
        bench.parts, noising, plan.diffusion, seed=plan.seed_of("diffusion"), state=state, batch_size=plan.batch_size
    )
    save_parts(bench.parts, out)
    write_facts(out, STARTER_TRAINING, STARTER_SAMPLER)


# Tasks take folders and numbers only: Prefect walks and hashes what a task is given, and views are large.
@task(name="see", cache_policy=NO_CACHE)
def see(out: Path, state: Path, plan: Plan) -> dict[str, float]:
    """Stage 1: the autoencoder."""
    return learn_to_see(set_up(out, state, plan), state, plan)


@task(name="judge", cache_policy=NO_CACHE)
def judge(out: Path, state: Path, plan: Plan) -> dict[str, float]:
    """Stage 2: the judge, which sees half of its images through the autoencoder."""
    bench = set_up(out, state, plan)
    learn_to_see(bench, state, plan)
    return learn_to_judge(bench, out, state, plan)


@task(name="draw", cache_policy=NO_CACHE)
def draw(out: Path, state: Path, plan: Plan) -> None:
    """Stage 3: noise prediction."""
    bench = set_up(out, state, plan)
    learn_to_see(bench, state, plan)
    learn_to_draw(bench, out, state, plan)


def make_starter(out: Path, state: Path, plan: Plan = STARTER_PLAN) -> dict[str, float]:
    """Write the starter's folder `out`; checkpoints live in `state`. Returns what was measured, by name.

    A stage that has finished is read from its checkpoint, so that calling again costs little and goes on."""
    measured = see(out, state, plan) | judge(out, state, plan)
    draw(out, state, plan)
    (state / "measured.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return measured


def use_threads(count: int) -> None:
    """Have torch work with so many threads."""
    torch.set_num_threads(count)
