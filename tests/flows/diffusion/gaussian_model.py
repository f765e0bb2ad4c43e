"""A model that needs no network: pixels that are Gaussian, whose best prediction and whose whole way are known.

Pixels of channel c have mean MEANS[c] and standard deviation SPREAD. Then the prediction is linear in the latents, and
the deterministic equation has an exact end: what stands k deviations from the mean at the beginning does so there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from flows.diffusion.schedulers import next_latents, noised, scheduler_for, timesteps_for
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings

SHAPE = (1, 4, 8, 8)
MEANS = torch.tensor([0.8, -0.5, 0.3, 0.0]).view(1, 4, 1, 1)
SPREAD = 0.4
EVERY = [
    SchedulerSettings(name=kind.name, spacing=spacing.value, eta=eta)
    for kind in SCHEDULERS.values()
    for spacing in kind.spacings
    for eta in ((0.0, 0.6) if kind.takes_eta else (0.0,))
]
"""Every scheduler with every spacing, and with eta where it takes one."""


def shown(settings: SchedulerSettings) -> str:
    """A name for a test's case."""
    return f"{settings.name}-{settings.spacing}" + (f"-eta{settings.eta:g}" if settings.eta else "")


def stable_diffusion(**changed: Any) -> DDPMScheduler:
    """The noise schedule of Stable Diffusion 1, with some of its settings changed."""
    base: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDPMScheduler(**base | {"steps_offset": 1, "clip_sample": False} | changed)


def zero_snr() -> DDPMScheduler:
    """The schedule of a model that was trained down to pure noise and predicts velocity."""
    return stable_diffusion(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")


def signal(noise_schedule: Any, timestep: Tensor | float) -> tuple[Tensor, Tensor]:
    """The shares of picture and noise at a timestep, which may lie between two."""
    cumulative: Tensor = noise_schedule.alphas_cumprod.double().clamp(min=2**-24)
    levels = 0.5 * ((1 - cumulative) / cumulative).log()
    below = int(float(timestep))
    part = float(timestep) - below
    level = levels[below] if not part else torch.lerp(levels[below], levels[below + 1], part)
    return (1 / (1 + (2 * level).exp())).sqrt().float(), (1 / (1 + (-2 * level).exp())).sqrt().float()


def predict(noise_schedule: Any, latents: Tensor, timestep: Tensor) -> Tensor:
    """The best prediction of noise or velocity, each pixel by itself."""
    alpha, sigma = signal(noise_schedule, timestep)
    noise = sigma * (latents - alpha * MEANS) / (alpha**2 * SPREAD**2 + sigma**2)
    if noise_schedule.config.prediction_type == "epsilon":
        return noise
    clean = MEANS + alpha * SPREAD**2 * (latents - alpha * MEANS) / (alpha**2 * SPREAD**2 + sigma**2)
    return alpha * noise - sigma * clean


def exact_end(noise_schedule: Any, first: Tensor, timestep: float = 999) -> Tensor:
    """Where the deterministic equation leads from these latents, noisy as at the timestep."""
    alpha, sigma = signal(noise_schedule, timestep)
    return MEANS + SPREAD * (first - alpha * MEANS) / (alpha**2 * SPREAD**2 + sigma**2) ** 0.5


def step_generators(seeds: Sequence[int], shape: Sequence[int]) -> list[torch.Generator]:
    """One generator a row, on the CPU, for the noise of the steps of latents (1, C, H, W): where the drawing of the
    first latents from the same seed leaves it, as in diffusers' pipelines. Begun with the seed alone, its first numbers
    would be those of the first latents once more."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(tuple(shape), generator=generator)
    return generators


def noise_of(seeds: Sequence[int]) -> Tensor:
    """Unit noise, a row a seed."""
    return torch.cat([torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def draw(
    settings: SchedulerSettings,
    noise_schedule: Any,
    seeds: Sequence[int],
    steps: int = 8,
    source: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """A whole drawing as the engine does it, from noise or from a source (N, C, H, W)."""
    scheduler = scheduler_for(settings, noise_schedule)
    timesteps, _ = timesteps_for(scheduler, steps, strength)
    noise = noise_of(seeds)
    latents = noise * scheduler.init_noise_sigma
    if source is not None:
        latents = noised(scheduler, source, noise, timesteps[0])
    generators = step_generators(seeds, SHAPE)
    for timestep in timesteps:
        predicted = predict(noise_schedule, scheduler.scale_model_input(latents, timestep), timestep)
        latents = next_latents(scheduler, settings, predicted, timestep, latents, generators)
    return latents
