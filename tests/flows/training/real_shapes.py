"""Random weights in the shape of Stable Diffusion 1.5, and of a small model with the same parts in the same places."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from flows.starter.tokenizer import MAX_TOKENS, write_tokenizer

RESOLUTION = 64


@dataclass(frozen=True)
class Shape:
    """Widths of the parts; depths, kinds of blocks and their order are those of Stable Diffusion 1.5."""

    unet: tuple[int, int, int, int]
    vae: tuple[int, int, int, int]
    text_width: int
    text_layers: int
    words: int
    heads: int
    groups: int


SD15 = Shape((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 49408, 8, 32)
"""860 M, 84 M and 123 M parameters."""
HALF = Shape((160, 320, 640, 640), (64, 128, 256, 256), 384, 12, 49408, 8, 32)
"""Half of every width: a quarter of the memory and of the time."""
SMALL = Shape((16, 16, 32, 32), (8, 8, 16, 16), 32, 2, 0, 2, 4)
"""`words` 0: as many as the tokenizer has."""


def write_base(folder: Path, shape: Shape) -> Path:
    """A diffusers folder of random weights with its card, for pictures of 64 px; returns the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # As long as the real one's where the text encoder is as large.
        tokenizer = write_tokenizer(folder / "tokenizer", max_tokens=77 if shape.words else MAX_TOKENS)
        make: Any = StableDiffusionPipeline
        pipeline = make(
            vae=_vae(shape),
            text_encoder=_text_encoder(shape, tokenizer),
            tokenizer=tokenizer,
            unet=_unet(shape),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
    card = {"family": "sd1", "resolution": RESOLUTION, "sampler": {"steps": 2, "guidance_scale": 3.0}}
    (folder / "darkroom.json").write_text(json.dumps(card))
    return folder


def _text_encoder(shape: Shape, tokenizer: Any) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=shape.words or len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=4 * shape.text_width,
            num_hidden_layers=shape.text_layers,
            # CLIP's heads are 64 wide.
            num_attention_heads=shape.text_width // 64 if shape.words else shape.heads,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=shape.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


# diffusers types its defaults as what they must be, such as tuples of one entry.
def _unet(shape: Shape) -> Any:
    options: dict[str, Any] = {"block_out_channels": shape.unet, "cross_attention_dim": shape.text_width}
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 8, attention_head_dim=shape.heads, norm_num_groups=shape.groups, **options
    )


def _vae(shape: Shape) -> Any:
    options: dict[str, Any] = {
        "block_out_channels": shape.vae,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(
        layers_per_block=2, latent_channels=4, norm_num_groups=shape.groups, sample_size=RESOLUTION, **options
    )
