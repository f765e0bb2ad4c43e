from __future__ import annotations

from typing import Any

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.data import MicroBatch, draw_micro_batch
from flows.training.photos.crops import pixels_of
from flows.training.photos.latents import LatentImages, TrainingImages, encode_images
from tests.flows.diffusion.reference import posterior_of, vae_of
from tests.flows.training.tiny import FAMILY, pictures, recipe


def cached(count: int) -> LatentImages:
    """`count` latents that tell which row they are."""
    mean = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1).expand(count, 2, 3, 3)
    return LatentImages(mean, torch.full_like(mean, 0.5))


def draw(number: int, seed: int = 3, batch_size: int = 2, **changes: Any) -> MicroBatch:
    images = TrainingImages(cached(5), cached(7))
    return draw_micro_batch(images, recipe(seed=seed, batch_size=batch_size, **changes), number, 1000)


def test_a_micro_batch_draws_the_same_whatever_was_drawn_before():
    straight = [draw(step) for step in range(4)][3]
    torch.manual_seed(99)
    torch.rand(17)
    alone = draw(3)
    for name in ("instance_rows", "regularization_rows", "posterior_noise", "noise", "timesteps"):
        assert torch.equal(getattr(straight, name), getattr(alone, name)), name


def test_how_samples_are_split_into_micro_batches_changes_no_sample():
    wide = draw(1, batch_size=4, noise_offset=0.1)
    for sample in range(4):
        alone = draw(4 + sample, batch_size=1, noise_offset=0.1)
        rows = [sample, 4 + sample]  # its instance image, then its regularization image
        assert torch.equal(alone.posterior_noise, wide.posterior_noise[rows])
        assert torch.equal(alone.noise, wide.noise[rows])
        assert torch.equal(alone.timesteps, wide.timesteps[rows])
        assert torch.equal(alone.instance_rows, wide.instance_rows[sample : sample + 1])
        assert torch.equal(alone.regularization_rows, wide.regularization_rows[sample : sample + 1])


def test_no_two_draws_of_a_sample_share_their_numbers():
    one = draw(0, batch_size=1)
    drawn = [*one.noise, *one.posterior_noise]
    assert not any(torch.equal(a, b) for place, a in enumerate(drawn) for b in drawn[:place])


def test_noise_offset_moves_whole_channels_and_nothing_else():
    moved = draw(0, noise_offset=0.5).noise - draw(0).noise
    assert torch.allclose(moved, moved[:, :, :1, :1].expand_as(moved), atol=1e-6)
    assert moved[:, :, 0, 0].abs().min() > 0
    # In halves of a standard normal number.
    many = torch.cat([(draw(n, noise_offset=0.5).noise - draw(n).noise)[:, :, 0, 0] for n in range(200)])
    assert many.std().item() == pytest.approx(0.5, rel=0.1)


def test_captions_are_dropped_by_sample_with_the_asked_for_probability():
    assert draw(0).dropped == ()
    dropped = [one for n in range(200) for one in draw(n, caption_dropout=0.25).dropped]
    assert sum(dropped) / len(dropped) == pytest.approx(0.25, abs=0.05)
    wide, alone = draw(0, batch_size=4, caption_dropout=0.5), draw(3, batch_size=1, caption_dropout=0.5)
    assert (wide.dropped[3], wide.dropped[7]) == alone.dropped
    assert all(draw(0, caption_dropout=1.0).dropped)


def test_each_sample_takes_one_of_its_images_views():
    images = TrainingImages(LatentImages(torch.zeros(6, 1, 1, 1), torch.zeros(6, 1, 1, 1), views=3), None)
    assert len(images.instance) == 2
    rows = [int(draw_micro_batch(images, recipe(batch_size=1), n, 1000).instance_rows) for n in range(60)]
    assert set(rows) == set(range(6))
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert {first // 3, second // 3} == {0, 1}


def test_an_image_that_repeats_comes_more_often_in_each_pass():
    one = cached(3)
    images = TrainingImages(LatentImages(one.mean, one.std, repeats=(1, 3, 1)), None)
    rows = [int(draw_micro_batch(images, recipe(batch_size=1), n, 1000).instance_rows) for n in range(10)]
    assert sorted(rows[:5]) == sorted(rows[5:]) == [0, 1, 1, 1, 2]


def shapes_of(*counts: int) -> TrainingImages:
    """Instance images of as many shapes; every shape has two regularization images."""
    first, *others = [TrainingImages(cached(count), cached(2)) for count in counts]
    return TrainingImages(first.instance, first.regularization, tuple(others))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_image_of_every_shape_is_seen_equally_often(batch_size: int):
    images = shapes_of(4, 1, 2)
    seen: dict[tuple[int, int], int] = {}
    order: list[int] = []
    for number in range(2 * 7):
        one = draw_micro_batch(images, recipe(batch_size=batch_size), number, 1000)
        order.append(one.shape)
        for row in one.instance_rows.tolist():
            seen[one.shape, row] = seen.get((one.shape, row), 0) + 1
    assert seen == {(shape, row): 2 * batch_size for shape, count in enumerate((4, 1, 2)) for row in range(count)}
    assert order[:7] != sorted(order[:7])


def test_every_pass_over_a_shape_has_an_order_of_its_own():
    rows: list[int] = []
    for number in range(2 * 10):
        one = draw_micro_batch(shapes_of(9, 1), recipe(batch_size=1), number, 1000)
        rows += one.instance_rows.tolist() if one.shape == 0 else []
    assert sorted(rows[:9]) == sorted(rows[9:]) == list(range(9))
    assert rows[:9] != rows[9:]


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
    posterior = posterior_of(components, pixels_of(picture, (64, 64)).unsqueeze(0))
    noise = torch.randn_like(posterior.mean)
    expected = (posterior.mean + posterior.std * noise) * vae_of(components).config["scaling_factor"]
    assert torch.allclose(latents.sample(torch.tensor([0]), noise), expected, atol=1e-6)


def test_an_images_latent_does_not_depend_on_its_neighbours(components: Components):
    two = pictures(2)
    together, alone = encode_images(FAMILY, components, two, 64), encode_images(FAMILY, components, two[1:], 64)
    assert torch.equal(together.mean[1], alone.mean[0])
