"""Pictures that are drawn in one call: each as if it were alone of its batch."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from flows.diffusion.families.protocol import Components
from flows.diffusion.sampler import denoise, first_latents, guiding, noise_of
from flows.diffusion.schedulers import scheduler_for, timesteps_for
from flows.diffusion.trajectories import ALONE, TOGETHER, Guidance, KeptSource, Prompts, Trajectory, advance
from flows.starter.networks import write_tiny_model
from storage.records.generation.schedulers import SchedulerSettings
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.training.tiny import FAMILY

STEPS, SCALE = 4, 3.0
NOISY = "euler_ancestral"


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Components:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return FAMILY.load(folder)


def begun(
    components: Components,
    seed: int,
    *,
    prompt: str = "a mug",
    steps: int = STEPS,
    scale: float = SCALE,
    name: str = "ddim",
    kept: KeptSource | None = None,
    eta: float = 0.0,
) -> Trajectory:
    """A picture at its beginning."""
    settings = SchedulerSettings(name=name, eta=eta)
    scheduler = scheduler_for(settings, components.noise_schedule)
    timesteps, _ = timesteps_for(scheduler, steps)
    noise, generator = noise_of(components, seed, 64, 64)
    with torch.no_grad():
        encoded = [FAMILY.encode_prompts(components, [text]) for text in (prompt, "")]
    guidance = Guidance(scale)
    prompts = Prompts(encoded[0], encoded[1] if guidance.needed else None)
    latents = noise * scheduler.init_noise_sigma
    given = {"settings": settings, "kept": kept}
    return Trajectory(scheduler, list(timesteps), latents, prompts, guidance, generator, **given)


def drawn(components: Components, trajectories: list[Trajectory], shape: int) -> list[Tensor]:
    with torch.no_grad():
        while left := [one for one in trajectories if not one.ended]:
            advance(FAMILY, components, left, shape)
    return [one.latents for one in trajectories]


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_a_picture_alone_is_the_one_that_the_sampler_draws(components: Components, scale: float) -> None:
    sampler = SamplerSettings(steps=STEPS, guidance_scale=scale)
    with torch.no_grad():
        conditioning = guiding(FAMILY, components, ["a mug"], sampler, "")
        expected = denoise(FAMILY, components, conditioning, first_latents(components, [5]), sampler)

    [latents] = drawn(components, [begun(components, 5, scale=scale)], ALONE)

    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [ALONE, TOGETHER])
def test_equal_pictures_are_equal_byte_for_byte(components: Components, shape: int) -> None:
    first, second = (drawn(components, [begun(components, 1)], shape)[0] for _ in range(2))

    assert torch.equal(first, second)


@pytest.mark.parametrize(("place", "others"), [(0, 7), (5, 7), (1, 1), (3, 3)])
def test_a_picture_depends_neither_on_its_neighbours_nor_on_its_place(
    components: Components, place: int, others: int
) -> None:
    [expected] = drawn(components, [begun(components, 1)], TOGETHER)
    # Neighbours with other seeds, prompts, steps, guidance and schedulers, some of them further on.
    company = [
        begun(components, 10 + number, prompt=f"a car {number}", steps=STEPS + number, scale=2.0 + number)
        if number % 2
        else begun(components, 10 + number, name=NOISY)
        for number in range(others)
    ]
    with torch.no_grad():
        advance(FAMILY, components, company, TOGETHER)
    mine = begun(components, 1)

    drawn(components, [*company[:place], mine, *company[place:]], TOGETHER)

    assert torch.equal(mine.latents, expected)


def test_new_noise_of_a_step_is_of_the_pictures_own_seed(components: Components) -> None:
    [expected] = drawn(components, [begun(components, 1, name=NOISY)], TOGETHER)
    mine, other = begun(components, 1, name=NOISY), begun(components, 2, name=NOISY)

    drawn(components, [other, mine], TOGETHER)

    assert torch.equal(mine.latents, expected)
    assert not torch.equal(mine.latents, other.latents)


def test_eta_is_noise_in_each_step(components: Components) -> None:
    plain, noisy = (drawn(components, [begun(components, 1, eta=eta)], ALONE)[0] for eta in (0.0, 1.0))

    assert not torch.allclose(plain, noisy, atol=1e-2)


def test_too_many_pictures_for_a_shape_are_refused(components: Components) -> None:
    with pytest.raises(ValueError, match="2 pictures do not go into a batch of 1"):
        advance(FAMILY, components, [begun(components, 1), begun(components, 2)], ALONE)
    with pytest.raises(ValueError, match="0 pictures"):
        advance(FAMILY, components, [], TOGETHER)


def test_guidance_is_brought_back_as_diffusers_does_it() -> None:
    generator = torch.Generator().manual_seed(0)
    without, with_prompt = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))

    ours = Guidance(7.5, 0.7).combine(without, with_prompt)

    guided = without + 7.5 * (with_prompt - without)
    torch.testing.assert_close(ours, rescale_noise_cfg(guided, with_prompt, guidance_rescale=0.7))


def test_outside_a_mask_the_source_is_kept(components: Components) -> None:
    source = torch.full((1, 4, 16, 16), 0.5)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1.0

    [latents] = drawn(
        components, [begun(components, 1, kept=KeptSource(source, mask, noise_of(components, 1, 64, 64)[0]))], ALONE
    )

    assert torch.equal(latents[..., :8], source[..., :8])
    assert not torch.allclose(latents[..., 8:], source[..., 8:], atol=0.1)


def test_the_clean_estimate_of_the_last_step_is_the_picture(components: Components) -> None:
    one = begun(components, 1)
    before = one.clean_estimate(components)

    [latents] = drawn(components, [one], ALONE)

    # DDIM's last step goes to the noise level of step 0, which this schedule counts as none.
    torch.testing.assert_close(one.clean_estimate(components), latents, rtol=0, atol=0.05)
    assert torch.equal(before, noise_of(components, 1, 64, 64)[0])
