"""What a folder says of the model in it, beside its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.diffusion.families.folders import load_folder
from flows.diffusion.families.sd1 import Sd1
from flows.diffusion.sampler import first_latents
from storage.errors import WeightsRefused
from tests.flows.diffusion.families.shapes import split_weights


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model without a card, for one test to change."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (copy / "darkroom.json").unlink()
    return copy


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("sample_size", "card", "resolution"),
    [(16, {}, 64), ([24, 16], {}, 96), (None, {}, 256), (16, {"resolution": 32}, 32)],
)
def test_a_model_draws_at_the_side_that_its_card_says_else_its_unet(
    sample_size: object, card: dict[str, Any], resolution: int, folder: Path
):
    edit(folder / "unet" / "config.json", sample_size=sample_size)
    if card:
        (folder / "darkroom.json").write_text(json.dumps(card))

    components = Sd1().load(folder)

    assert components.resolution == resolution
    assert first_latents(components, [1]).shape == (1, 4, resolution // 4, resolution // 4)
    assert first_latents(components, [1, 2], resolution=48).shape == (2, 4, 12, 12)


@pytest.mark.parametrize("zeros", [True, False])
def test_whether_no_words_are_zeros_is_what_the_pipeline_says(zeros: bool, folder: Path):
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=zeros)

    assert Sd1().load(folder).zero_empty_prompt is zeros


def test_a_shard_that_is_missing_is_named_before_anything_is_loaded(folder: Path):
    split_weights(folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").unlink()

    with pytest.raises(WeightsRefused, match=r"lacks unet/diffusion_pytorch_model-00001-of-00002\.safetensors\."):
        load_folder(folder, Sd1().layout, {})
