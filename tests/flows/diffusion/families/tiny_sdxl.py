"""A tiny random model in the layout of Stable Diffusion XL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from flows.starter.tokenizer import write_tokenizer

WIDTHS = (16, 24)
"""Of the two text encoders: readers tell the encoders of a single file apart by them."""
PROJECTED = 32
TIME_WIDTH = 8


def write_tiny_sdxl(folder: Path, seed: int = 0, **schedule: Any) -> None:
    """Save a pipeline of random weights for 64 px; `schedule` changes the scheduler's settings."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    # As published: what stands behind a prompt is another token for each encoder.
    second = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), pad_token="!")
    kept: Any = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        timestep_spacing="leading",
        **schedule,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = [kind(_text_config(tokenizer, width)) for kind, width in zip(_KINDS, WIDTHS, strict=True)]
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=encoders[0],
            text_encoder_2=encoders[1],
            tokenizer=tokenizer,
            tokenizer_2=second,
            unet=_unet(),
            scheduler=kept,
            force_zeros_for_empty_prompt=True,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


_KINDS: tuple[Any, Any] = (CLIPTextModel, CLIPTextModelWithProjection)


def _text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=PROJECTED,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(8, 8, 8),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),  # pyright: ignore[reportArgumentType]
        attention_head_dim=(1, 2, 2),  # pyright: ignore[reportArgumentType]
        use_linear_projection=True,
        cross_attention_dim=sum(WIDTHS),
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_WIDTH + PROJECTED,
        norm_num_groups=4,
    )
