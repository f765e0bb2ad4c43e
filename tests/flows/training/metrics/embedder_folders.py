"""A tiny random CLIP, and a tiny DINO, in transformers layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, Dinov2Model, ViTImageProcessor, ViTModel

from flows.starter.tokenizer import write_tokenizer

SMALL_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 16,
    "image_size": 32,
}


def write_clip(folder: Path) -> Path:
    """Write one; returns the folder."""
    tokenizer = write_tokenizer(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def write_dino(folder: Path, model: ViTModel | Dinov2Model) -> Path:
    """Write this one; returns the folder."""
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
