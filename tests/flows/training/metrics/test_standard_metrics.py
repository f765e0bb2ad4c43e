"""What papers report of personalised models, each beside the base model's."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import ViTConfig, ViTModel

from flows.training.metrics.comparisons import EvaluationImages
from flows.training.metrics.embedders import open_embedders
from flows.training.metrics.standard_metrics import standard_metrics
from tests.flows.training.metrics.embedder_folders import SMALL_VIT, write_clip, write_dino
from tests.flows.training.metrics.test_embedders import pixels


def test_all_that_papers_report_is_measured_beside_the_base(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_dino(tmp_path / "dino", ViTModel(ViTConfig(**SMALL_VIT, intermediate_size=16)))
    photos, prompts = pixels(2), ("a mug on the beach", "a mug on the beach", "a mug at night", "a mug at night")
    tuned = EvaluationImages(photos[[0, 1, 0, 1]], pixels(2, "class"))
    base = EvaluationImages(pixels(4, "base"), pixels(2, "base class"))
    found = standard_metrics(open_embedders(tmp_path), photos, prompts, base, tuned)
    of_both = {f"{name}{suffix}" for name in ("dino", "pres", "div", "clip_i", "clip_t") for suffix in ("", "_base")}
    ends = {f"{name}_{end}" for name in ("dino", "pres", "div", "clip_i", "clip_t") for end in ("low", "high")}
    assert set(found) == of_both | ends | {"dino_photos", "clip_i_photos"}
    for name in ("pres", "clip_t"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    # Each picture is one of the two photos, so the mean is that over all pairs of the photos.
    for name in ("dino", "clip_i"):
        assert found[name] == pytest.approx((1 + found[f"{name}_photos"]) / 2, abs=1e-5)
        assert found[f"{name}_base"] < found[name]
        # Each of the two is as near to both as the other.
        assert found[f"{name}_low"] == pytest.approx(found[name]) == found[f"{name}_high"]
    assert found["div"] == pytest.approx(1 - found["dino_photos"], abs=1e-5)
    # Both prompts have the same two pictures: it is as sure as it can be.
    assert found["div_low"] == found["div_high"] == pytest.approx(found["div"])


def test_pictures_that_are_alone_of_their_prompt_have_no_interval_of_diversity(tmp_path: Path) -> None:
    write_dino(tmp_path / "dino", ViTModel(ViTConfig(**SMALL_VIT, intermediate_size=16)))
    images = EvaluationImages(pixels(2), pixels(2, "class"))
    found = standard_metrics(open_embedders(tmp_path), pixels(2), ("a mug", "a lamp"), images, images)
    assert found["div"] == 0.0
    assert "div_low" not in found
    assert "dino_low" in found
