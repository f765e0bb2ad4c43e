"""Our training step beside the loop of diffusers' DreamBooth example, written with the library, in one run.

    python -m benchmarks.training [BASE_MODEL_FOLDER] [--steps 20] [--threads 2]

Both train the same UNet with prior preservation on the same pictures. The example's loop encodes pictures and prompts
at every step, as train_dreambooth.py does; ours caches the VAE's posterior and a frozen text encoder's output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import mse_loss

from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.fit import fit
from flows.training.photos.latents import TrainingImages, encode_images, pixels_of_all
from flows.training.photos.random_numbers import generator_for
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingRecipe

BATCH = 4
WARM_UP = 3
FAMILY = family_named("sd1")


class NoCheckpoints:
    """A checkpoint store for a run that is measured without its checkpoints."""

    owner = "benchmark"

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Keep nothing."""


def recipe(steps: int, threads: int, resolution: int) -> TrainingRecipe:
    """What both loops train: the UNet alone."""
    return TrainingRecipe(
        data_set_hash="benchmark",
        base_model_hash="benchmark",
        family="sd1",
        resolution=resolution,
        class_word="mug",
        identifier="sks",
        steps=steps,
        batch_size=BATCH,
        learning_rate=5e-6,
        text_encoder_learning_rate=0.0,
        token_learning_rate=0.0,
        prior_loss_weight=1.0,
        regularization_count=BATCH,
        checkpoint_every=10**6,
        sample_every=10**6,
        seed=0,
        sampler=SamplerSettings(),
        evaluation_scenes=(),
        threads=threads,
    )


def pictures(resolution: int) -> list[Image.Image]:
    """As many random pictures as a batch has instance rows."""
    size = (resolution, resolution, 3)
    noise = [
        torch.randint(0, 256, size, generator=generator_for(0, "picture", n), dtype=torch.uint8) for n in range(BATCH)
    ]
    return [Image.fromarray(one.numpy()) for one in noise]


def example_steps(components: Components, wanted: TrainingRecipe) -> list[float]:
    """Seconds of each step of the example's loop, with its own AdamW and gradient clipping."""
    vae: Any = components.vae  # as the example has it, which states no types
    components.unet.requires_grad_(True).train()
    parameters = list(components.unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=wanted.learning_rate, weight_decay=1e-2)
    pixels = pixels_of_all(pictures(wanted.resolution) * 2, wanted.resolution).to(components.device)
    prompts = [wanted.instance_prompt] * BATCH + [wanted.class_prompt] * BATCH
    seconds: list[float] = []
    for _ in range(wanted.steps):
        started = time.perf_counter()
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample()
            latents = latents * vae.config.scaling_factor
            conditioning = FAMILY.encode_prompts(components, prompts)
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (2 * BATCH,), device=latents.device)
        noisy = components.noise_schedule.add_noise(latents, noise, times)
        predicted, predicted_prior = FAMILY.predict(components, noisy, times, conditioning).chunk(2)
        target, target_prior = noise.chunk(2)
        loss = mse_loss(predicted, target) + wanted.prior_loss_weight * mse_loss(predicted_prior, target_prior)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # the example logs it at every step
        seconds.append(time.perf_counter() - started)
    return seconds


def our_steps(components: Components, wanted: TrainingRecipe) -> list[float]:
    """Seconds of each step of ours, from the same reports that a job's metrics come from."""
    latents = encode_images(FAMILY, components, pictures(wanted.resolution), wanted.resolution)
    seconds: list[float] = []

    def note(report: StepReport) -> None:
        seconds.append(2 * BATCH / report.images_per_second)

    with tempfile.TemporaryDirectory() as folder:
        fit(
            wanted,
            FAMILY,
            components,
            TrainingImages(latents, latents),
            recipe_hash=wanted.fingerprint(),
            newest=None,
            checkpoints=NoCheckpoints(),
            work_folder=Path(folder),
            watch=Watch(on_step=note),
        )
    return seconds


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("deployments/local/starter"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    device = prepare_torch(asked.threads)
    card = asked.folder / "darkroom.json"
    resolution = json.loads(card.read_text())["resolution"] if card.is_file() else 512
    wanted = recipe(asked.steps + WARM_UP, asked.threads, resolution)
    results: dict[str, list[float]] = {"ours": [], "diffusers example": []}
    # In turns, so that a machine that slows down or warms up touches both alike.
    for _ in range(2):
        results["ours"] += our_steps(FAMILY.load(asked.folder).to(device), wanted)[WARM_UP:]
        results["diffusers example"] += example_steps(FAMILY.load(asked.folder).to(device), wanted)[WARM_UP:]
    print(f"{asked.folder}, {wanted.resolution} px, {BATCH} + {BATCH} images a step, {asked.threads} threads, {device}")
    print(f"{'':20} {'median s/step':>14} {'fastest':>9} {'images/s':>9}")
    for name, seconds in results.items():
        middle = statistics.median(seconds)
        print(f"{name:20} {middle:14.3f} {min(seconds):9.3f} {2 * BATCH / middle:9.1f}")


if __name__ == "__main__":
    main()
