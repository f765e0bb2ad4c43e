"""Pictures of the starter model with every scheduler, beside DDIM's of the same seed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import deployments.local
from flows.diffusion.families.protocol import Components
from flows.diffusion.families.sd1 import FAMILY
from flows.diffusion.sampler import draw_images, first_latents, guiding, to_image
from flows.diffusion.schedulers import next_latents, scheduler_for, timesteps_for
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.diffusion.gaussian_model import EVERY, shown, step_generators

SEED, PROMPTS = 5, ["a photo of a red mug"]
SAMPLER = SamplerSettings(steps=25, guidance_scale=3.0)
DDIM = SchedulerSettings()
QUICK = ("pndm-normal", "euler-normal", "dpmpp_2m-karras", "dpmpp_2s_ancestral-karras")


@cache
def starter() -> Components:
    torch.set_num_threads(1)
    return FAMILY.load(Path(deployments.local.__path__[0]) / "starter")


@torch.no_grad()
def drawn(settings: SchedulerSettings, seed: int = SEED) -> Tensor:
    """The latents of one picture, guided in one UNet call a timestep."""
    components = starter()
    conditioning = guiding(FAMILY, components, PROMPTS, SAMPLER, "")
    scheduler = scheduler_for(settings, components.noise_schedule)
    timesteps, _ = timesteps_for(scheduler, SAMPLER.steps)
    latents = first_latents(components, [seed])
    generators = step_generators([seed], latents.shape)
    latents = latents * scheduler.init_noise_sigma
    for timestep in timesteps:
        rows = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        without, guided = FAMILY.predict(components, rows, timestep.expand(2), conditioning).chunk(2)
        predicted = without + SAMPLER.guidance_scale * (guided - without)
        latents = next_latents(scheduler, settings, predicted, timestep, latents, generators)
    return latents


@cache
def by_ddim(seed: int = SEED) -> Tensor:
    return drawn(DDIM, seed)


def test_ddim_draws_the_same_bytes_as_before():
    [before] = draw_images(FAMILY, starter(), PROMPTS, [SEED], SAMPLER)
    with torch.no_grad():
        after = to_image(FAMILY.decode_latents(starter(), by_ddim())[0])
    assert np.array_equal(np.asarray(after), np.asarray(before))


def test_another_seed_is_another_picture():
    # What the next test's bound has to stay below. Measured: 0.55.
    assert float((by_ddim(SEED + 1) - by_ddim()).abs().mean()) > 0.4


@pytest.mark.parametrize(
    "settings",
    [one if shown(one) in QUICK else pytest.param(one, marks=pytest.mark.soak) for one in EVERY],
    ids=shown,
)
def test_every_scheduler_draws_and_those_without_noise_draw_what_ddim_draws(settings: SchedulerSettings):
    latents = drawn(settings)
    assert latents.isfinite().all()
    # A picture, neither grey nor torn. Measured: 0.95 to 1.27 times DDIM's.
    assert float(latents.std() / by_ddim().std()) == pytest.approx(1.0, abs=0.5)
    if not SCHEDULERS[settings.name].draws_noise and settings.eta == 0:
        # Measured: at most 0.08, and 0.104 for DPM++ 3M Beta: 2 to 6 of 255 grey levels.
        assert float((latents - by_ddim()).abs().mean()) < 0.2
