"""CLIP and DINO from a folder: tiny random ones of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from flows.training.metrics.comparisons import EvaluationImages
from flows.training.metrics.embedders import Dino, open_embedders
from flows.training.metrics.standard_metrics import standard_metrics
from flows.training.photos.pictures import SquarePixels
from storage.errors import JobCannotSucceed
from tests.flows.training.metrics.embedder_folders import SMALL_VIT, write_clip, write_dino
from tests.flows.training.tiny import pictures


def pixels(count: int, purpose: str = "pictures") -> torch.Tensor:
    return SquarePixels(pictures(count, purpose), 64)[:]


@pytest.mark.parametrize(
    "model",
    [ViTModel(ViTConfig(**SMALL_VIT, intermediate_size=16)), Dinov2Model(Dinov2Config(**SMALL_VIT))],
    ids=["dino", "dinov2"],
)
def test_a_vision_transformer_embeds_pictures_by_its_class_token(model: ViTModel | Dinov2Model, tmp_path: Path) -> None:
    dino = Dino(write_dino(tmp_path / "dino", model))
    images = pixels(2)
    embedded = dino.embed(images)
    assert embedded.shape == (2, 16)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(2), atol=1e-5)
    resized = torch.nn.functional.interpolate(images, 32, mode="bilinear", antialias=True)
    token = model.eval()(pixel_values=resized).last_hidden_state[:, 0]
    assert torch.allclose(embedded, torch.nn.functional.normalize(token, dim=-1), atol=0.02)


def test_a_folder_without_either_is_refused_and_one_of_them_is_enough(tmp_path: Path) -> None:
    with pytest.raises(JobCannotSucceed, match=r"clip/config.json nor dino/config.json"):
        open_embedders(tmp_path)
    write_clip(tmp_path / "clip")
    found = open_embedders(tmp_path)
    assert (found.clip is not None, found.dino) == (True, None)
    images = EvaluationImages(pixels(1), pixels(1))
    measured = standard_metrics(found, pixels(1), ["a mug"], images, images)
    names = {"clip_i", "clip_i_base", "clip_t", "clip_t_base"}
    names |= {f"{name}_{end}" for name in ("clip_i", "clip_t") for end in ("low", "high")}
    assert set(measured) == names, "one photo has no ceiling"
    assert open_embedders(None).clip is None
