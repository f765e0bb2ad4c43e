from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from flows.diffusion.own_schedulers import ThirdOrderSde
from flows.diffusion.schedulers import scheduler_for, timesteps_for
from storage.records.generation.schedulers import SchedulerSettings
from tests.flows.diffusion.gaussian_model import stable_diffusion

NOISE = stable_diffusion()
THIRD_ORDER = SchedulerSettings(name="dpmpp_3m_sde", spacing="exponential")


def end_of_third_step(scheduler: Any, power: int) -> tuple[Tensor, Tensor]:
    """What the third of twenty steps adds if the clean latents go as a power of the way, and the step's length h.

    The way is counted in steps from the third one's beginning; h is in half logarithms of the signal-to-noise ratio.
    Noise is left out.
    """
    timesteps, _ = timesteps_for(scheduler, 20)
    sigmas: Tensor = scheduler.sigmas.double()
    ways = -(sigmas[:3] / sigmas[2]).log() / (h := (sigmas[2] / sigmas[3]).log())
    latents = nothing = torch.zeros(1, 1, 1, 1, dtype=torch.double)
    for timestep, sigma, way in zip(timesteps, sigmas[:3], ways, strict=False):
        latents = nothing
        # The prediction of noise that stands for these clean latents where the noisy ones are 0.
        predicted = (nothing - way**power) / sigma
        latents = scheduler.step(predicted, timestep, latents, variance_noise=nothing, return_dict=False)[0]
    return latents.squeeze() * (sigmas[3] ** 2 + 1) ** 0.5, h


@pytest.mark.parametrize(("power", "share"), [(0, 1.0), (1, 1.0), (2, 0.5)])
def test_third_order_weighs_what_changes_as_published(power: int, share: float):
    # The exact end is the mean of the clean latents, weighed by exp(2 h (way - 1)). The published solver takes half of
    # it for what goes with the square.
    added, h = end_of_third_step(scheduler_for(THIRD_ORDER, NOISE), power)
    way = torch.linspace(0, 1, 20001, dtype=torch.double)
    exact = torch.trapezoid(2 * h * (2 * h * (way - 1)).exp() * way**power, way)
    assert added.item() == pytest.approx(share * exact.item(), rel=1e-3)


def test_diffusers_has_the_other_sign_in_what_goes_with_the_square():
    # When this fails, diffusers has fixed it, and the correction in own_schedulers.py has to go.
    ours: ThirdOrderSde = scheduler_for(THIRD_ORDER, NOISE)
    theirs = DPMSolverMultistepScheduler.from_config(ours.config)
    assert end_of_third_step(theirs, 2)[0].item() == pytest.approx(end_of_third_step(ours, 2)[0].item() - 1, rel=1e-3)


@pytest.mark.parametrize("spacing", ["normal", "karras", "exponential", "beta", "trailing"])
def test_euler_ancestral_has_the_levels_of_euler(spacing: str):
    ancestral, euler = (
        scheduler_for(SchedulerSettings(name=name, spacing=spacing), NOISE) for name in ("euler_ancestral", "euler")
    )
    assert torch.equal(timesteps_for(ancestral, 10)[0], timesteps_for(euler, 10)[0])
    assert torch.equal(ancestral.sigmas, euler.sigmas)
    assert ancestral.init_noise_sigma == euler.init_noise_sigma
