"""What model files say of themselves, in their metadata and by their tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from deployments.importing.model_folders import FoundModel, find_models

DOWN = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


def test_variants_of_one_name_are_one_model_unless_they_differ_in_kind(tmp_path: Path):
    for name, width in (("a", 768), ("a-fp16", 768), ("a_pruned.fp16", 768), ("a-bf16", 2048), ("ab", 768)):
        save_file({DOWN: np.zeros((4, width), np.float16)}, tmp_path / f"{name}.safetensors")

    found = [model for model in find_models(tmp_path) if isinstance(model, FoundModel)]

    assert [[file.path.stem for file in model.files] for model in found] == [
        ["a-bf16"],
        ["a-fp16", "a", "a_pruned.fp16"],
        ["ab"],
    ]
