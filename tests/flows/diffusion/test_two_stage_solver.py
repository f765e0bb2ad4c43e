from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from flows.diffusion.schedulers import scheduler_for, timesteps_for
from storage.records.generation.schedulers import SchedulerSettings
from tests.flows.diffusion.gaussian_model import (
    SHAPE,
    draw,
    noise_of,
    predict,
    signal,
    stable_diffusion,
    step_generators,
    zero_snr,
)

SDE, ANCESTRAL = "dpmpp_sde", "dpmpp_2s_ancestral"
STEPS, SEEDS = 6, [3, 4]


def levels_of(settings: SchedulerSettings, noise_schedule: Any) -> Tensor:
    """The noise levels of the steps and 0."""
    scheduler = scheduler_for(settings, noise_schedule)
    timesteps_for(scheduler, STEPS)
    return torch.cat([scheduler.sigmas[:-1:2], scheduler.sigmas[-1:]])


class KnownPath:
    """Stands for torchsde's path: between the points of a drawing it goes as ours, which draws them from the seed."""

    levels = torch.empty(0)

    def __init__(self, *, entropy: int, size: Sequence[int], **_: Any) -> None:
        [generator] = step_generators([entropy], SHAPE)
        self.points, self.walked = [self.levels[0]], [torch.zeros(tuple(size))]
        for level, following in pairwise(self.levels[:-1]):
            for before, point in ((level, (level * following).sqrt()), ((level * following).sqrt(), following)):
                drawn = torch.randn(SHAPE, generator=generator)[0]
                self.points.append(point)
                self.walked.append(self.walked[-1] + (before - point).sqrt() * drawn)

    def __call__(self, low: Tensor, high: Tensor) -> Tensor:
        places = torch.stack(self.points)
        return self.walked[int((places - high).abs().argmin())] - self.walked[int((places - low).abs().argmin())]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Diffusers' module of DPMSolverSDEScheduler, which needs torchsde; on a path whose points are known."""
    monkeypatch.setitem(sys.modules, "torchsde", SimpleNamespace(BrownianInterval=KnownPath))
    file = Path(diffusers.__file__).parent / "schedulers" / "scheduling_dpmsolver_sde.py"
    spec = importlib.util.spec_from_file_location("diffusers.schedulers.sde_on_a_known_path", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("spacing", ["normal", "karras", "exponential", "beta", "trailing"])
@pytest.mark.parametrize("velocity", [False, True])
def test_dpmpp_sde_does_what_diffusers_does_on_the_same_path(
    spacing: str, velocity: bool, theirs: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    noise_schedule = stable_diffusion(prediction_type="v_prediction" if velocity else "epsilon")
    settings = SchedulerSettings(name=SDE, spacing=spacing)
    monkeypatch.setattr(KnownPath, "levels", levels_of(settings, noise_schedule))
    option = {f"use_{spacing}_sigmas": True} if spacing in ("karras", "exponential", "beta") else {}
    scheduler = theirs.DPMSolverSDEScheduler.from_config(
        noise_schedule.config,
        timestep_spacing="trailing" if spacing == "trailing" else "linspace",
        noise_sampler_seed=SEEDS,
        **option,
    )
    scheduler.set_timesteps(STEPS)
    latents = noise_of(SEEDS) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        predicted = predict(noise_schedule, scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    assert torch.allclose(draw(settings, noise_schedule, SEEDS, STEPS), latents, atol=1e-4)


@pytest.mark.parametrize("spacing", ["normal", "karras"])
def test_dpmpp_2s_ancestral_is_a_second_order_step_down_and_noise_up_again(spacing: str):
    noise_schedule = stable_diffusion()
    settings = SchedulerSettings(name=ANCESTRAL, spacing=spacing)
    levels = levels_of(settings, noise_schedule).double()
    cumulative = noise_schedule.alphas_cumprod.double()
    known = ((1 - cumulative) / cumulative).sqrt()

    def clean(latents: Tensor, level: Tensor) -> Tensor:
        below = min(max(int((known <= level).sum()) - 1, 0), len(known) - 2)
        part = float(((level / known[below]).log() / (known[below + 1] / known[below]).log()).clamp(0, 1))
        predicted = predict(noise_schedule, latents / (level**2 + 1) ** 0.5, torch.tensor(below + part))
        return latents - level * predicted

    latents = noise_of(SEEDS).double() * levels[0]
    generators = step_generators(SEEDS, SHAPE)
    for level, following in pairwise(levels[:-1]):
        down = following**2 / level
        middle = (level * down).sqrt()
        halfway = clean(latents, level) + middle / level * (latents - clean(latents, level))
        better = clean(halfway, middle)
        noise = torch.cat([torch.randn(SHAPE, generator=generator) for generator in generators])
        latents = better + down / level * (latents - better) + (following**2 - down**2).sqrt() * noise
    expected = clean(latents, levels[-2])
    assert torch.allclose(draw(settings, noise_schedule, SEEDS, STEPS).double(), expected, atol=1e-4)


@pytest.mark.parametrize("name", [SDE, ANCESTRAL])
def test_noise_is_added_up_to_the_level_where_the_drawing_is(name: str):
    settings, noise_schedule = SchedulerSettings(name=name, spacing="karras"), stable_diffusion()
    scheduler = scheduler_for(settings, noise_schedule)
    timesteps, begin = timesteps_for(scheduler, 10, 0.5)
    assert begin == 10
    assert len(timesteps) == 9
    nothing, noise = torch.zeros(SHAPE), noise_of([1])
    for timestep in timesteps:
        sigma = scheduler.sigmas[begin]
        # Where the UNet is asked, the level and the timestep say the same.
        alpha, share = signal(noise_schedule, timestep)
        assert (share / alpha).item() == pytest.approx(sigma.item(), rel=1e-3)
        assert torch.equal(scheduler.add_noise(nothing, noise, timestep.reshape(1)), noise * sigma)
        assert torch.equal(scheduler.scale_model_input(noise, timestep), noise / (sigma**2 + 1) ** 0.5)
        scheduler.step(noise, timestep, noise, step_generators([1], SHAPE))
        begin += 1
    assert scheduler.sigmas[begin] == 0
    assert torch.equal(scheduler.add_noise(noise, noise, timesteps[-1:]), noise)


@pytest.mark.parametrize("name", [SDE, ANCESTRAL])
@pytest.mark.parametrize("noise_schedule", [stable_diffusion(), zero_snr()], ids=["noise", "velocity"])
def test_a_single_step_ends_at_the_clean_latents_of_its_prediction(name: str, noise_schedule: Any):
    drawn = draw(SchedulerSettings(name=name), noise_schedule, [1], steps=1)
    # Nearly no picture is in the noise, so that the prediction is the mean of all of them.
    assert torch.allclose(drawn, draw(SchedulerSettings(name="euler"), noise_schedule, [1], steps=1), atol=1e-3)
