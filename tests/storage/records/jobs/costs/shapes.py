"""The sizes of real base models, from diffusers' and transformers' own classes without a weight in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from storage.records.jobs.costs.activations import UnetShape
from storage.records.jobs.costs.sizes import ModelSizes, TextShape

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SMALL_TEXT = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
_LARGE_TEXT = CLIPTextConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
)


@cache
def sd15() -> ModelSizes:
    """Stable Diffusion 1.5: 860, 123 and 84 million parameters."""
    with torch.device("meta"):
        parts = {"unet": unet(SD15_UNET), "vae": _vae(), "text_encoder": CLIPTextModel(_SMALL_TEXT)}
    return _sizes(parts, SD15_UNET, {"text_encoder": TextShape(12, 768)})


@cache
def sdxl() -> ModelSizes:
    """Stable Diffusion XL: 2,567, 123, 695 and 84 million parameters."""
    with torch.device("meta"):
        parts = {
            "unet": unet(SDXL_UNET),
            "vae": _vae(),
            "text_encoder": CLIPTextModel(_SMALL_TEXT),
            "text_encoder_2": CLIPTextModelWithProjection(_LARGE_TEXT),
        }
    return _sizes(parts, SDXL_UNET, {"text_encoder": TextShape(12, 768), "text_encoder_2": TextShape(32, 1280)})


def unet(config: dict[str, Any]) -> Any:
    """A UNet of this config."""
    make: Any = UNet2DConditionModel
    return make(**config)


def _vae() -> nn.Module:
    make: Any = AutoencoderKL
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return make(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **kinds)


def _sizes(parts: dict[str, nn.Module], config: dict[str, Any], texts: dict[str, TextShape]) -> ModelSizes:
    shapes = {
        part: {name: tuple(one.shape) for name, one in module.named_parameters()} for part, module in parts.items()
    }
    counts = {part: sum(one.numel() for one in module.parameters()) for part, module in parts.items()}
    return ModelSizes(
        shapes, {part: 2 * count for part, count in counts.items()}, UnetShape.of_config(config), texts, 8
    )
