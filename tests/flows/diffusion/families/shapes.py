"""Model folders of random weights in shapes that no published model has: what maps by a fixed table fails on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

UNETS: dict[str, dict[str, Any]] = {
    "attention in other places, deep, linear projections": {
        "block_out_channels": (8, 16, 16, 24),
        "layers_per_block": 3,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2, 1),
        "use_linear_projection": True,
    },
    "two levels, one layer, attention at both": {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    },
}
VAES: dict[str, dict[str, Any]] = {
    "attention in other places, deep, linear projections": {"block_out_channels": (8, 8, 16), "layers_per_block": 2},
    "two levels, one layer, attention at both": {"block_out_channels": (8, 16, 16, 16, 16), "layers_per_block": 1},
}


def write_odd_model(base: Path, folder: Path, shape: str) -> None:
    """A copy of `base` whose UNet and VAE have another shape."""
    shutil.copytree(base, folder)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, cross_attention_dim=16, attention_head_dim=8, norm_num_groups=4, **UNETS[shape]
    )
    unet.save_pretrained(folder / "unet")
    levels = len(VAES[shape]["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
        latent_channels=4,
        norm_num_groups=4,
        **VAES[shape],
    )
    vae.save_pretrained(folder / "vae")


def split_weights(file: Path) -> None:
    """Write a weights file again in two shards and their index, as save_pretrained does with large ones."""
    tensors = load_file(file)
    names = sorted(tensors)
    stem = file.name.removesuffix(".safetensors")
    shards = {f"{stem}-{number:05d}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, file.with_name(shard), metadata={"format": "pt"})
    where = {name: shard for shard, held in shards.items() for name in held}
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()


def rename_vae_attention(folder: Path) -> None:
    """Give the VAE's attention the names that folders of 2022 have, Stable Diffusion 1.5's own among them."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(file).items():
        place, _, leaf = name.rpartition(".")
        for new, former in old.items():
            place = place.removesuffix(new) + former if place.endswith(f"attentions.0.{new}") else place
        renamed[f"{place}.{leaf}"] = tensor
    save_file(renamed, file)
