"""How large a model is and what of it trains, from the names and shapes of its tensors and its configs alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.records.jobs.adapter_layers import is_target
from storage.records.jobs.costs.activations import UnetShape
from storage.records.jobs.trained_parts import matches
from storage.records.jobs.training import TrainingRecipe

Shape = tuple[int, ...]
_LEVEL = re.compile(r"decoder\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
TEXT_TOKENS = 77
"""Tokens of a prompt as CLIP reads it."""


@dataclass(frozen=True)
class TextShape:
    """What of a text encoder's config counts: its layers, and the length of its vectors."""

    layers: int
    width: int


@dataclass(frozen=True)
class ModelSizes:
    """A base model: the shapes of its tensors by part and name, the bytes of its weights by part, and its configs.

    `vae_factor` is how many pixels of an image side are one latent, `other_bytes` what files take that are no weights
    of a part and are exported with the model.
    """

    shapes: Mapping[str, Mapping[str, Shape]]
    stored_bytes: Mapping[str, int]
    unet: UnetShape
    texts: Mapping[str, TextShape]
    vae_factor: int
    other_bytes: int = 0

    def parameters(self, part: str) -> int:
        """Elements of a part's tensors."""
        return sum(math.prod(shape) for shape in self.shapes[part].values())

    @property
    def decoder_width(self) -> int:
        """Channels that the VAE's decoder reads at an image's full size; 0 where the shapes do not say."""
        inputs = {
            int(found[1]): shape[1] for name, shape in self.shapes["vae"].items() if (found := _LEVEL.fullmatch(name))
        }
        return inputs[max(inputs)] if inputs else 0

    @property
    def stored(self) -> int:
        """Bytes of all parts' weights."""
        return sum(self.stored_bytes.values())


def vae_factor_of(blocks: int) -> int:
    """Pixels of an image side for one latent of an AutoencoderKL of so many blocks: all but the last halve a side."""
    return 2 ** (blocks - 1)


def text_shape(config: Mapping[str, Any]) -> TextShape:
    """Read text_encoder/config.json; what it leaves out is transformers' default."""
    return TextShape(int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 512)))


def trained_shapes(sizes: ModelSizes, recipe: TrainingRecipe) -> dict[str, Shape]:
    """The shapes of what a recipe trains: weights of the model, or an adapter's own matrices."""
    parts = ["unet", *(sizes.texts if recipe.text_encoder_learning_rate > 0 else ())]
    found: dict[str, Shape] = {}
    for part in parts:
        for name, shape in sizes.shapes[part].items():
            called = f"{part}.{name.removeprefix('text_model.')}"
            if recipe.trains_adapter:
                found |= _adapter(called, shape, recipe)
            elif matches(recipe.train_only, called):
                found[called] = shape
    if recipe.token_learning_rate > 0 and not recipe.trains_adapter:
        found |= {f"identifier.{part}": (1, text.width) for part, text in sizes.texts.items()}
    return found


def count(shapes: Mapping[str, Shape]) -> int:
    """Elements of all of them."""
    return sum(math.prod(shape) for shape in shapes.values())


def _adapter(name: str, shape: Shape, recipe: TrainingRecipe) -> dict[str, Shape]:
    """The matrices beside one layer, none where it gets no adapter."""
    layer = name.removesuffix(".weight")
    inside = layer.partition(".")[2]
    # Tables of embeddings are matrices too, and no layer that carries one.
    if layer == name or len(shape) < 2 or inside.endswith("embedding"):
        return {}
    kernel = shape[2:]
    if not is_target(inside, kernel, recipe.lora_targets, recipe.lora_conv):
        return {}
    if not matches(recipe.train_only, name):
        return {}
    rank = recipe.lora_rank
    found = {f"{layer}.lora_A": (rank, *shape[1:]), f"{layer}.lora_B": (shape[0], rank, *(1,) * len(kernel))}
    return found | ({f"{layer}.lora_magnitude_vector": (shape[0],)} if recipe.lora_dora else {})
