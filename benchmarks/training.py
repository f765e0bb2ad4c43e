"""Our training step beside diffusers' own DreamBooth loops and beside a bare UNet loop, full and by LoRA.

    python -m benchmarks.training [BASE_MODEL_FOLDER] [--methods full,lora] [--steps 20] [--threads 2] [--rounds 2]

The starter, 4 + 4 images of 64 px; with SIZE=full random weights of Stable Diffusion 1.5's shape, 1 + 1 images of 256
px, one warm-up and five steps, for which the goals are and 20 GB of free memory are needed (`--methods lora`: 8). Each
side is a process of its own, and all are waited for at the same point: when the weights are the next step's. A step's
seconds are those from the end of the one before.

diffusers' loop encodes pictures and prompts at every step, as its examples do; ours caches the VAE's posterior and a
frozen text encoder's output. It has fused AdamW, as ours has; with its own default it is printed too. The bare loop
has both cached, and does nothing but the UNet's steps. The peak is of the resident memory (of a GPU: what torch had
allocated) after the base is loaded. A checkpoint's pause is what the training stands still for: look for NaN, and
write until the system has it; beside a bare write and fsync of as many bytes. When it is hashed, synced and in the blob
store, which the next steps do not wait for, is printed too. TMPDIR names the disk. An adapter's pause has no goal: its
few megabytes are copied in some 15 ms, most of which Python takes for some hundred tensors, whatever the disk does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.dreambooth.stages import Asked
from flows.diffusion.families.lookup import family_named
from flows.training.photos.random_numbers import generator_for
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingRecipe

FULL = os.environ.get("SIZE") == "full"
BATCH = 1 if FULL else 4
WARM_UP = 1 if FULL else 3
STEPS = 5 if FULL else 20
ROUNDS = 1 if FULL else 2
FULL_RESOLUTION = 256
LORA_RANK = 4
FAMILY = family_named("sd1")
STARTER = Path("deployments/local/starter")
SIDES = {
    "full": ("full", "full-diffusers", "full-diffusers-default", "full-bare"),
    "lora": ("lora", "lora-split", "lora-diffusers", "lora-diffusers-default", "lora-bare"),
}
SPEED_GOALS = {"full": 1.35, "lora": 1.55}
BARE_GOAL, PAUSE_GOAL = 0.95, 1.2
MEMORY_GOALS = {"full": 0.97, "lora": 0.88, "lora-split": 0.80}
Results = dict[str, list[dict[str, Any]]]


def recipe(steps: int, threads: int, resolution: int, batch_size: int = BATCH, **changes: Any) -> TrainingRecipe:
    """What every side trains: the UNet alone."""
    fields: dict[str, Any] = {
        "data_set_hash": "benchmark",
        "base_model_hash": "benchmark",
        "family": "sd1",
        "resolution": resolution,
        "class_word": "mug",
        "identifier": "sks",
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": 5e-6,
        "text_encoder_learning_rate": 0.0,
        "token_learning_rate": 0.0,
        "prior_loss_weight": 1.0,
        "regularization_count": batch_size,
        "checkpoint_every": 10**6,
        "sample_every": 10**6,
        "seed": 0,
        "sampler": SamplerSettings(),
        "evaluation_scenes": (),
        "threads": threads,
    }
    return TrainingRecipe(**{**fields, **changes})


def pictures(resolution: int, count: int = BATCH) -> list[Image.Image]:
    """Random pictures, as many as a batch has instance rows."""
    size = (resolution, resolution, 3)
    noise = [
        torch.randint(0, 256, size, generator=generator_for(0, "picture", n), dtype=torch.uint8) for n in range(count)
    ]
    return [Image.fromarray(one.numpy()) for one in noise]


def resolution_of(folder: Path) -> int:
    """What a base's card says, in pixels."""
    card = folder / "darkroom.json"
    return json.loads(card.read_text())["resolution"] if card.is_file() else 512


def measured(side: str, asked: Asked) -> dict[str, Any]:
    """What one side prints."""
    command = [sys.executable, "-m", "benchmarks.dreambooth.side", side, json.dumps(asdict(asked))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def seconds_of(runs: list[dict[str, Any]], stage: str = "step") -> list[float]:
    """Seconds of a stage in each step after the warm-up."""
    return [step.get(stage, 0.0) for run in runs for step in run["steps"][WARM_UP:]]


def peak_of(runs: list[dict[str, Any]]) -> float:
    """The smallest peak of the runs in GB: what is more is of other things that ran."""
    return min(run["peak"] for run in runs) / 1e9


def print_tables(results: Results) -> None:
    """Steps and memory, then where a step's time goes."""
    stages = ("VAE", "text encoder", "forward", "backward", "clip and update")
    print(f"{'':24}{'median s/step':>14}{'fastest':>9}{'images/s':>10}{'peak GB':>9}")
    for side, runs in results.items():
        seconds, rate = seconds_of(runs), 2 * BATCH / statistics.median(seconds_of(runs))
        print(f"{side:24}{statistics.median(seconds):14.3f}{min(seconds):9.3f}{rate:10.2f}{peak_of(runs):9.2f}")
    print(f"\n{'median seconds of':24}" + "".join(f"{stage:>16}" for stage in stages) + f"{'the rest':>16}")
    for side, runs in results.items():
        parts = {stage: statistics.median(seconds_of(runs, stage)) for stage in stages}
        rest = statistics.median(seconds_of(runs)) - sum(parts.values())
        print(f"{side:24}" + "".join(f"{part:16.4f}" for part in (*parts.values(), rest)))


def figure(name: str, ours: float, peer: float, goal: str | None = None) -> None:
    """One line. The goals are those of the full size."""
    stated = "no goal" if goal is None else f"goal {goal}" if FULL else f"no goal ({goal} with SIZE=full)"
    print(f"figure {name} {ours:.3f} {peer:.3f} {ours / peer:.3f} {stated}", flush=True)


def print_figures(results: Results) -> None:
    """Every figure of the sides that ran."""
    rates = {side: 2 * BATCH / statistics.median(seconds_of(runs)) for side, runs in results.items()}
    peaks = {side: peak_of(runs) for side, runs in results.items()}
    for method in (method for method in SIDES if method in results):
        peer, goal = f"{method}-diffusers", SPEED_GOALS[method]
        figure(f"{method}-images-per-second", rates[method], rates[peer], f">={goal}")
        default = f"{peer}-default"
        figure(default, rates[method], rates[default])
        figure(f"{method}-of-bare", rates[method], rates[f"{method}-bare"], f">={BARE_GOAL}")
        for side in (side for side in MEMORY_GOALS if side in SIDES[method]):
            figure(f"{side}-peak-gb", peaks[side], peaks[peer], f"<={MEMORY_GOALS[side]}")
        pauses = [run["checkpoint"] for run in results[method]]
        ours, stored, bare = (min(pause[name] for pause in pauses) for name in ("ours", "stored", "bare"))
        print(f"{method}: a checkpoint of {pauses[0]['bytes'] / 1e9:.3f} GB")
        figure(f"{method}-checkpoint-seconds", ours, bare, f"<={PAUSE_GOAL}" if method == "full" else None)
        figure(f"{method}-checkpoint-stored-seconds", stored, bare)


def main() -> None:
    """Measure every side in turns, then print tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--methods", default="full,lora")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dr-", ignore_cleanup_errors=True) as name:
        folder = given.folder or STARTER
        if FULL and given.folder is None:
            folder = Path(name) / "base"
            subprocess.run([sys.executable, "-m", "benchmarks.dreambooth.side", "base", str(folder)], check=True)
        resolution = FULL_RESOLUTION if FULL else resolution_of(folder)
        asked = Asked(str(folder), name, resolution, BATCH, given.steps + WARM_UP, given.threads)
        results: Results = defaultdict(list)
        # In turns, so that a machine that slows down or warms up touches all alike.
        for _ in range(given.rounds):
            for side in (side for method in given.methods.split(",") for side in SIDES[method]):
                results[side].append(measured(side, asked))
    print(f"{folder}, {resolution} px, {BATCH} + {BATCH} images a step, {given.threads} threads")
    print_tables(results)
    print_figures(results)


if __name__ == "__main__":
    main()
