"""Likeness, variety and certainty, worked by hand."""

from __future__ import annotations

import pytest
import torch

from flows.training.metrics.comparisons import diversity, interval, mean_cosine, mean_cosine_within

AXES = torch.eye(3)


def test_the_photos_ceiling_leaves_out_self_pairs_and_a_single_photo_has_none() -> None:
    photos = AXES[[0, 0, 1]]
    assert mean_cosine_within(photos) == pytest.approx(1 / 3)  # pairs: 1, 0, 0
    assert mean_cosine(photos, photos) == pytest.approx(5 / 9)
    assert mean_cosine_within(photos[:1]) is None


def test_diversity_compares_pictures_of_one_prompt_only() -> None:
    prompts = ("beach", "beach", "snow", "snow")
    assert diversity(AXES[[0, 0, 1, 1]], prompts) == pytest.approx(0.0, abs=1e-6)
    assert diversity(AXES[[0, 1, 2, 2]], prompts) == pytest.approx(0.5)
    assert diversity(AXES, ("beach", "snow", "night")) == 0.0


def test_an_interval_holds_the_mean_narrows_with_more_pictures_and_is_the_same_each_time() -> None:
    values = torch.linspace(0, 1, 16)
    low, high = interval(values)
    assert low < 0.5 < high
    # Of the normal distribution: 1.96 standard errors to either side, within the resampling's own noise.
    error = float(values.std(unbiased=False)) / 4
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)
    more_low, more_high = interval(values.repeat(16))
    assert (more_high - more_low) == pytest.approx((high - low) / 4, rel=0.1)
    assert interval(values) == (low, high)
    assert interval(torch.ones(5)) == (1.0, 1.0)
