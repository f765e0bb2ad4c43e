from __future__ import annotations

import pytest
import torch

from flows.training.losses import (
    UnpairedBatch,
    instance_loss,
    min_snr_weights,
    per_sample_loss,
    prior_preservation_loss,
)


def two_by_two(*rows: float) -> torch.Tensor:
    """One constant 2 x 2 picture with one channel for each value."""
    return torch.stack([torch.full((1, 2, 2), value) for value in rows])


def test_prior_loss_equals_the_sum_worked_by_hand():
    predicted, target = two_by_two(1.0, 2.0, 3.0, 4.0), two_by_two(0.0, 0.0, 1.0, 1.0)
    # instance rows: 1 and 4, mean 2.5; prior rows: 4 and 9, mean 6.5
    loss = prior_preservation_loss(predicted, target, 0.5)
    assert loss.instance.item() == 2.5
    assert loss.prior.item() == 6.5
    assert loss.total.item() == 2.5 + 0.5 * 6.5


def test_prior_loss_averages_within_a_picture_not_over_all_pixels_of_both_halves():
    predicted = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[0.0, 2.0], [0.0, 0.0]]]])
    loss = prior_preservation_loss(predicted, torch.zeros_like(predicted), 1.0)
    assert (loss.instance.item(), loss.prior.item()) == (0.25, 1.0)


def test_weight_zero_has_the_loss_and_gradient_of_plain_fine_tuning():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(4, 3, 2, 2, generator=generator)
    first = torch.randn(4, 3, 2, 2, generator=generator, requires_grad=True)
    second = first.detach()[:2].clone().requires_grad_(True)
    with_prior, plain = prior_preservation_loss(first, target, 0.0), instance_loss(second, target[:2])
    with_prior.total.backward()
    plain.total.backward()
    assert with_prior.total.item() == plain.total.item()
    assert first.grad is not None
    assert second.grad is not None
    assert torch.equal(first.grad[:2], second.grad)
    assert torch.count_nonzero(first.grad[2:]) == 0


def test_an_odd_batch_is_refused():
    with pytest.raises(UnpairedBatch, match="3 rows"):
        prior_preservation_loss(two_by_two(1, 2, 3), two_by_two(0, 0, 0), 1.0)


def test_a_permuted_batch_permutes_the_per_sample_losses():
    generator = torch.Generator().manual_seed(1)
    predicted, target = torch.randn(5, 2, 3, 3, generator=generator), torch.randn(5, 2, 3, 3, generator=generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(per_sample_loss(predicted[order], target[order]), per_sample_loss(predicted, target)[order])


# SNR = kept / (1 - kept), by hand: 0.5 is 1; 0.8 is 4; 0.9 is 9; 0.96 is 24; 0.2 is 0.25
KEPT = torch.tensor([0.5, 0.8, 0.9, 0.96, 0.2], dtype=torch.float64)


def test_min_snr_weights_for_noise_prediction_equal_those_worked_by_hand():
    weights = min_snr_weights(KEPT, torch.arange(5), 5.0, "epsilon")
    assert weights.tolist() == pytest.approx([1.0, 1.0, 5 / 9, 5 / 24, 1.0], rel=1e-6)


def test_min_snr_weights_for_velocity_prediction_equal_those_worked_by_hand():
    weights = min_snr_weights(KEPT, torch.arange(5), 5.0, "v_prediction")
    assert weights.tolist() == pytest.approx([1 / 2, 4 / 5, 5 / 10, 5 / 25, 0.25 / 1.25], rel=1e-6)


def test_min_snr_weighs_each_row_of_both_halves_by_its_own_timestep():
    # The diffusers example applies weights of 2B timesteps to B losses; here each row has its own.
    timesteps = torch.tensor([0, 2, 3, 4])
    weights = min_snr_weights(KEPT, timesteps, 5.0, "epsilon")
    loss = prior_preservation_loss(two_by_two(1, 2, 3, 4), two_by_two(0, 0, 0, 0), 2.0, weights)
    instance = (1 * 1.0 + 4 * 5 / 9) / 2
    prior = (9 * 5 / 24 + 16 * 1.0) / 2
    assert loss.total.item() == pytest.approx(instance + 2.0 * prior, rel=1e-6)
