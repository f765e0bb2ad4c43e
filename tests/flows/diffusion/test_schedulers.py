from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from flows.diffusion.schedulers import next_latents, noised, scheduler_for, timesteps_for
from storage.errors import InvalidRequest
from storage.records.generation.scheduler_limits import unet_calls
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings
from tests.flows.diffusion.gaussian_model import (
    EVERY,
    MEANS,
    SHAPE,
    SPREAD,
    draw,
    exact_end,
    noise_of,
    predict,
    shown,
    signal,
    stable_diffusion,
    step_generators,
    zero_snr,
)

NOISE, VELOCITY = stable_diffusion(), zero_snr()
DDIM = SchedulerSettings()
every = pytest.mark.parametrize("settings", EVERY, ids=shown)
usual = pytest.mark.parametrize(
    "settings",
    [
        one if one.spacing in ("normal", SCHEDULERS[one.name].automatic) else pytest.param(one, marks=pytest.mark.soak)
        for one in EVERY
    ],
    ids=shown,
)
"""Every one, those with an unusual spacing in the long tests alone."""


def noisy(settings: SchedulerSettings) -> bool:
    """Whether its steps draw noise."""
    return SCHEDULERS[settings.name].draws_noise or settings.eta > 0


@every
def test_a_row_does_not_depend_on_its_neighbours(settings: SchedulerSettings):
    whole = draw(settings, NOISE, [1, 2, 3, 4])
    other = draw(settings, NOISE, [7, 2, 9, 4])
    assert torch.equal(whole[[1, 3]], other[[1, 3]])
    assert not torch.equal(whole[0], other[0])
    # What no row may share: a step that measures the batch would bend with a neighbour that is far out.
    source = MEANS + SPREAD * noise_of([11, 12, 13, 14])
    far = source.clone()
    far[0] *= 1e4
    drawn, beside = (draw(settings, NOISE, [1, 2, 3, 4], source=one, strength=0.5) for one in (source, far))
    assert torch.equal(drawn[1:], beside[1:])


@usual
def test_a_drawing_ends_at_the_pictures_that_the_model_knows(settings: SchedulerSettings):
    drawn = draw(settings, NOISE, [1, 2, 3, 4], steps=50)
    spread = float((drawn - MEANS).std())
    if SCHEDULERS[settings.name].max_steps:
        # They go by what a distilled model predicts; this one predicts means, so that pictures are less apart.
        assert 0.2 < spread < 0.42
        return
    # Measured: 0.32 (Euler a Beta) to 0.50 (DPM++ 3M SDE Beta) around 0.4, of which 256 times 4 numbers err by 0.01.
    assert 0.3 < spread < 0.55
    if not noisy(settings):
        # Measured: 0.00 to 0.15 (Euler Beta); another picture is about 2 away.
        assert float((drawn - exact_end(NOISE, noise_of([1, 2, 3, 4]))).abs().max()) < 0.2


@usual
def test_few_steps_and_a_model_down_to_pure_noise_give_numbers(settings: SchedulerSettings):
    kind = SCHEDULERS[settings.name]
    drawn = draw(settings, NOISE, [1, 2], steps=kind.min_steps)
    assert drawn.isfinite().all()
    assert drawn.dtype == torch.float32
    if kind.min_steps == 1 and kind.levels != "model":
        # A single step begins with pure noise, so that it ends at what all pictures have in common.
        assert float((drawn - MEANS).abs().max()) < 0.2
    if (settings.name, settings.spacing) == ("dpm2_ancestral", "beta"):
        with pytest.raises(InvalidRequest, match="spacing: places noise levels in 8 steps that are too far apart"):
            draw(settings, VELOCITY, [1, 2])
        return
    drawn = draw(settings, VELOCITY, [1, 2])
    assert drawn.isfinite().all()
    if settings.spacing in ("normal", "trailing"):
        # The rest places levels evenly up to one of 4096, which needs more than eight steps.
        assert abs(float((drawn - MEANS).std()) - SPREAD) < 0.2


@usual
def test_a_drawing_goes_on_from_the_middle_of_a_picture(settings: SchedulerSettings):
    source = MEANS + SPREAD * noise_of([11, 12])
    apart: list[float] = []
    for strength in (0.1, 0.5, 0.8):
        drawn = draw(settings, NOISE, [1, 2], steps=20, source=source, strength=strength)
        apart.append(float((drawn - source).std()))
        # Measured: 0.25 (LCM) to 0.62; SA Solver and DPM++ 3M SDE overshoot with Beta to 1.03.
        limit = 1.1 if settings.spacing == "beta" else 0.65
        assert 0.2 < float((drawn - MEANS).std()) < limit
    assert apart[0] < apart[1] < apart[2] * 1.1


@every
def test_a_source_is_as_noisy_as_the_drawing_at_each_of_its_timesteps(settings: SchedulerSettings):
    scheduler = scheduler_for(settings, NOISE)
    timesteps, _ = timesteps_for(scheduler, 8, 0.75)
    nothing, one = torch.zeros(SHAPE), torch.ones(SHAPE)
    generators = step_generators([1], SHAPE)
    for timestep in timesteps:
        picture, noise = noised(scheduler, one, nothing, timestep), noised(scheduler, nothing, one, timestep)
        alpha, sigma = signal(NOISE, timestep)
        # Some ask at a timestep that is cut to a whole one, at a level that is not.
        assert float((noise / picture).mean()) == pytest.approx(float(sigma / alpha), rel=0.05, abs=0.01)
        next_latents(scheduler, settings, one, timestep, one, generators)


@every
def test_unet_calls_are_those_that_the_price_counts(settings: SchedulerSettings):
    scheduler = scheduler_for(settings, NOISE)
    for steps, strength in ((2, 1.0), (9, 1.0), (20, 0.33), (20, 0.05), (1, 1.0)):
        if steps >= SCHEDULERS[settings.name].min_steps:
            timesteps, begin = timesteps_for(scheduler, steps, strength)
            assert len(timesteps) == unet_calls(settings, steps, strength)
            assert begin == (steps - max(int(steps * strength), 1)) * SCHEDULERS[settings.name].calls


def by_hand(settings: SchedulerSettings, seeds: list[int], steps: int, **options: Any) -> Tensor:
    """The same drawing with diffusers alone, as its pipelines do it."""
    kind = SCHEDULERS[settings.name]
    made: Any = getattr(diffusers, kind.diffusers)
    scheduler = made.from_config(NOISE.config, clip_sample=False, **kind.options, **options)
    scheduler.set_timesteps(steps)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn(SHAPE, generator=generator) for generator in generators])
    latents = noise * scheduler.init_noise_sigma
    extra: dict[str, Any] = {"eta": settings.eta} if kind.takes_eta else {}
    extra |= {"generator": generators} if noisy(settings) else {}
    for timestep in scheduler.timesteps:
        predicted = predict(NOISE, scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, **extra, return_dict=False)[0]
    return latents


def diffusers_options(settings: SchedulerSettings) -> dict[str, Any]:
    """What diffusers' documentation sets for a spacing."""
    if settings.spacing == "trailing":
        return {"timestep_spacing": "trailing"}
    spaced: dict[str, Any] = {} if settings.spacing == "normal" else {f"use_{settings.spacing}_sigmas": True}
    model = SCHEDULERS[settings.name].levels == "model"
    return spaced if model else spaced | {"timestep_spacing": "linspace"}


THEIRS = [
    settings
    for settings in EVERY
    if not SCHEDULERS[settings.name].own
    # Diffusers' Euler ancestral has no spacings.
    and (settings.name != "euler_ancestral" or settings.spacing in ("normal", "trailing"))
]


@pytest.mark.parametrize("settings", THEIRS, ids=shown)
def test_a_drawing_equals_that_of_diffusers_class_made_by_hand(settings: SchedulerSettings):
    ours = draw(settings, NOISE, [1, 2], steps=8)
    assert torch.equal(ours, by_hand(settings, [1, 2], 8, **diffusers_options(settings)))


def test_ddim_is_made_as_it_always_was():
    made, before = scheduler_for(DDIM, NOISE), DDIMScheduler.from_config(NOISE.config, clip_sample=False)
    assert isinstance(made, DDIMScheduler)
    assert isinstance(before, DDIMScheduler)
    assert made.config == before.config


def test_each_drawing_has_a_scheduler_of_its_own():
    settings = SchedulerSettings(name="dpmpp_2m")
    first, second = scheduler_for(settings, NOISE), scheduler_for(settings, NOISE)
    timesteps, _ = timesteps_for(first, 4)
    next_latents(first, settings, noise_of([1]), timesteps[0], noise_of([1]))
    assert second.step_index is None
    assert second.model_outputs == [None, None]


def test_how_somebody_else_drew_with_the_model_changes_nothing():
    drawn_with = {
        "use_karras_sigmas": True,
        "solver_order": 3,
        "algorithm_type": "sde-dpmsolver++",
        "thresholding": True,
    }
    changed = type(NOISE).from_config({**NOISE.config, **drawn_with})
    for name in ("euler", "dpmpp_2m", "unipc"):
        settings = SchedulerSettings(name=name)
        assert torch.equal(draw(settings, changed, [1]), draw(settings, NOISE, [1]))


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_a_model_that_asks_for_trailing_has_it(name: str):
    normal, trailing = (SchedulerSettings(name=name, spacing=spacing) for spacing in ("normal", "trailing"))
    assert torch.equal(draw(normal, VELOCITY, [1]), draw(trailing, VELOCITY, [1]))
    assert not torch.equal(draw(normal, NOISE, [1]), draw(trailing, NOISE, [1]))


def test_a_shape_of_noise_that_a_class_cannot_compute_is_passed_to_it():
    sigmoid = stable_diffusion(beta_schedule="sigmoid")
    drawn = draw(SchedulerSettings(name="euler"), sigmoid, [1], steps=25)
    assert float((drawn - exact_end(sigmoid, noise_of([1]))).abs().max()) < 0.3


def test_noise_goes_on_where_the_first_latents_left_its_generator():
    [generator] = step_generators([5], SHAPE)
    both = torch.Generator().manual_seed(5)
    first, second = torch.randn(SHAPE, generator=both), torch.randn(SHAPE, generator=both)
    assert torch.equal(first, noise_of([5]))
    assert torch.equal(torch.randn(SHAPE, generator=generator), second)


def test_noise_without_a_generator_a_row_is_refused():
    settings = SchedulerSettings(name="euler_ancestral")
    scheduler = scheduler_for(settings, NOISE)
    timesteps, _ = timesteps_for(scheduler, 4)
    latents = noise_of([1, 2])
    with pytest.raises(ValueError, match="1 generators for 2 rows of Euler a: pass one a row"):
        next_latents(scheduler, settings, latents, timesteps[0], latents, step_generators([1], SHAPE))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    for kind in SCHEDULERS.values():
        draw(SchedulerSettings(name=kind.name), NOISE, [1], steps=3)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("settings", "steps", "field"),
    [
        (SchedulerSettings(name="restart"), 8, "scheduler"),
        (SchedulerSettings(spacing="karras"), 8, "spacing"),
        (SchedulerSettings(name="lcm"), 51, "steps"),
    ],
)
def test_what_no_scheduler_takes_is_refused(settings: SchedulerSettings, steps: int, field: str):
    with pytest.raises(InvalidRequest) as refused:
        timesteps_for(scheduler_for(settings, NOISE), steps)
    assert list(refused.value.fields) == [field]
