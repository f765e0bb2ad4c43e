"""The smallest parts of Stable Diffusion XL, in its own layout of blocks, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TEXT_WIDTH = 2048
# As the configuration of a folder says it: diffusers' own types have no list for some of these.
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 2),
    "norm_num_groups": 4,
    "cross_attention_dim": TEXT_WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 16 + 6 * 4,
}


@dataclass
class XlParts:
    """UNet and both text encoders."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    def predict(self) -> Tensor:
        """What the UNet makes of fixed inputs that both encoders have a part in."""
        tokens = torch.arange(7).unsqueeze(0)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            first = self.text_encoder(tokens).last_hidden_state
            second = self.text_encoder_2(tokens)
            states = torch.cat([first, second.last_hidden_state], dim=-1).repeat(1, 1, TEXT_WIDTH // 32)
            added = {"text_embeds": second.text_embeds, "time_ids": torch.ones(1, 6)}
            noisy = torch.randn(1, 4, 8, 8, generator=draw)
            unet: Any = self.unet
            return unet(noisy, torch.tensor([500]), states, added_cond_kwargs=added, return_dict=False)[0]


def tiny_xl(seed: int = 0) -> XlParts:
    """Parts from a seed: equal ones for equal seeds; in evaluation mode, without gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**UNET)
        encoders = CLIPTextConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=16,
            bos_token_id=48,
            eos_token_id=49,
            pad_token_id=49,
        )
        parts = XlParts(unet, CLIPTextModel(encoders), CLIPTextModelWithProjection(encoders))
    for module in parts.modules.values():
        module.requires_grad_(False).eval()
    return parts
