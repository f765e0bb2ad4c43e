"""The estimate's count of activations beside what autograd keeps of a forward pass, at real sizes by shapes alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from storage.records.jobs.costs.activations import WHOLE, UnetShape, blocks_of, kept_bytes
from tests.storage.records.jobs.costs.shapes import SD15_UNET, SDXL_UNET, unet

# The one way to run a model of gigabytes by shapes alone.
from torch._subclasses.fake_tensor import FakeTensorMode  # isort: skip


def kept_by_autograd(config: dict[str, Any], side: int, checkpointed: bool) -> int:
    """Bytes that a forward pass of one image leaves for the backward pass, beside the weights."""
    with FakeTensorMode():
        model = unet(config).train()
        if checkpointed:
            model.enable_gradient_checkpointing()
        weights = {one.untyped_storage()._cdata for one in model.parameters()}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(
                torch.randn(1, 4, side, side),
                torch.zeros(1, dtype=torch.long),
                torch.randn(1, 77, config["cross_attention_dim"]),
                added_cond_kwargs=added if "addition_embed_type" in config else None,
            )
        return sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in weights)


@pytest.mark.parametrize(
    ("config", "side", "checkpointed", "error"),
    [
        (SD15_UNET, 64, False, 0.02),
        (SD15_UNET, 64, True, 0.06),
        (SDXL_UNET, 128, False, 0.02),
        (SDXL_UNET, 128, True, 0.06),
    ],
    ids=["sd15", "sd15-checkpointed", "sdxl", "sdxl-checkpointed"],
)
def test_what_is_kept_is_counted(config: dict[str, Any], side: int, checkpointed: bool, error: float) -> None:
    shape, positions = UnetShape.of_config(config), side * side
    counted = kept_bytes(shape, checkpointed=checkpointed, mixed=False) * positions
    if checkpointed:
        # What one block makes again comes later, in the backward pass.
        counted -= max(block.computed_again(WHOLE) for block in blocks_of(shape)) * positions
    assert counted == pytest.approx(kept_by_autograd(config, side, checkpointed), rel=error)
