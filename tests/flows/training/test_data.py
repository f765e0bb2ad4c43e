from __future__ import annotations

import pytest
import torch
from PIL import Image

from flows.diffusion.families.protocol import Components
from flows.training.data import LatentImages, TrainingImages, draw_step, encode_images, pixels_of
from tests.flows.diffusion.reference import posterior_of, vae_of
from tests.flows.training.tiny import FAMILY, pictures


def cached(count: int) -> LatentImages:
    """`count` latents that tell which row they are."""
    mean = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1).expand(count, 2, 3, 3)
    return LatentImages(mean, torch.full_like(mean, 0.5))


def draw(step: int, seed: int = 3, batch_size: int = 2):
    images = TrainingImages(cached(5), cached(7))
    return draw_step(images, seed=seed, step=step, batch_size=batch_size, timesteps=1000)


def test_a_step_draws_the_same_whatever_was_drawn_before():
    straight = [draw(step) for step in range(4)][3]
    torch.manual_seed(99)
    torch.rand(17)
    alone = draw(3)
    for name in ("instance_rows", "regularization_rows", "posterior_noise", "noise", "timesteps"):
        assert torch.equal(getattr(straight, name), getattr(alone, name)), name


def test_steps_and_seeds_draw_different_noise():
    assert not torch.equal(draw(3).noise, draw(4).noise)
    assert not torch.equal(draw(3).noise, draw(3, seed=4).noise)


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw(0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_image_is_seen_once_before_any_is_seen_again(batch_size: int):
    rows = torch.cat([draw(step, batch_size=batch_size).instance_rows for step in range(15 // batch_size)]).tolist()
    for start in range(0, len(rows) - 4, 5):
        assert sorted(rows[start : start + 5]) == [0, 1, 2, 3, 4]


def test_timesteps_cover_the_schedule():
    times = torch.cat([draw(step, batch_size=8).timesteps for step in range(50)])
    assert times.min() < 25
    assert times.max() > 975
    assert times.max() < 1000


def test_a_cached_latent_is_a_sample_of_the_posterior(components: Components):
    [picture] = pictures(1)
    latents = encode_images(FAMILY, components, [picture], 64)
    posterior = posterior_of(components, pixels_of(picture, 64).unsqueeze(0))
    noise = torch.randn_like(posterior.mean)
    expected = (posterior.mean + posterior.std * noise) * vae_of(components).config["scaling_factor"]
    assert torch.allclose(latents.sample(torch.tensor([0]), noise), expected, atol=1e-6)


def test_an_images_latent_does_not_depend_on_its_neighbours(components: Components):
    two = pictures(2)
    together, alone = encode_images(FAMILY, components, two, 64), encode_images(FAMILY, components, two[1:], 64)
    assert torch.equal(together.mean[1], alone.mean[0])


def test_a_wide_photo_is_cropped_in_the_middle_and_never_squashed():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    pixels = pixels_of(wide, 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels.min() > 0.9  # only the white middle is left


def test_pixels_span_minus_one_to_one_and_transparency_is_dropped():
    half = Image.new("RGBA", (64, 64), (255, 0, 0, 128))
    assert pixels_of(half, 64)[:, 0, 0].tolist() == [1.0, -1.0, -1.0]
