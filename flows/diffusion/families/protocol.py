"""What every model family offers: load a folder, encode prompts, predict, and say what export writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flows.diffusion.families.deferred import read_now
from flows.diffusion.families.layout import FamilyLayout
from flows.diffusion.families.text_tokens import TokenRows
from storage.records.jobs.costs.sizes import vae_factor_of

HIDDEN_STATES = "encoder_hidden_states"
"""The one tensor of a conditioning that every family has: (prompts, tokens, width)."""


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts as the UNet takes them: keyword to tensor, first dimension = prompts."""

    tensors: Mapping[str, Tensor]

    def take(self, rows: Sequence[int]) -> Conditioning:
        """The conditioning of the given prompts, in the given order; a row may be taken many times."""
        return Conditioning({name: tensor[list(rows)] for name, tensor in self.tensors.items()})

    def then(self, other: Conditioning) -> Conditioning:
        """This conditioning followed by `other` along the first dimension."""
        return Conditioning({name: torch.cat([tensor, other.tensors[name]]) for name, tensor in self.tensors.items()})

    def detach(self) -> Conditioning:
        """The same numbers without their gradient history."""
        return Conditioning({name: tensor.detach() for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class ImageSizes:
    """How an image came to be what the model sees, in pixels: each pair is (height, width), or (top, left)."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are: text encoders may be elsewhere than the UNet."""
    return next(read_now(module).parameters()).device


def vae_factor(vae: Any) -> int:
    """Pixels of an image side for one latent of this AutoencoderKL."""
    return vae_factor_of(len(vae.config.block_out_channels))


@dataclass(frozen=True)
class Components:
    """The parts of a latent diffusion model in memory: evaluation mode, gradients off. They compute in float32.

    `tokenizers` and `text_encoders` are in one order, the encoders by their folders. `noise_schedule` is diffusers'
    DDPMScheduler with the base model's own settings (betas, prediction type). `resolution` is the side in pixels of
    what the model draws; `zero_empty_prompt` says that an empty negative prompt is zeros, not the encoding of no words.
    """

    folder: Path
    tokenizers: tuple[Any, ...]
    text_encoders: Mapping[str, nn.Module]
    vae: nn.Module
    unet: nn.Module
    noise_schedule: Any
    resolution: int
    zero_empty_prompt: bool = False

    @property
    def tokenizer(self) -> Any:
        """The first tokenizer."""
        return self.tokenizers[0]

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return next(iter(self.text_encoders.values()))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that hold weights, by the name of their folder."""
        return {**self.text_encoders, "unet": self.unet, "vae": self.vae}

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        # Asked of the weights, not kept in a field: Lightning moves modules by itself.
        return device_of(self.unet)

    @property
    def vae_factor(self) -> int:
        """Pixels of an image side for one of its latents."""
        return vae_factor(self.vae)

    def with_modules(self, modules: Mapping[str, nn.Module]) -> Components:
        """The same with some of the parts that hold weights in place of its own, by the name of their folder."""
        encoders = {name: modules.get(name, one) for name, one in self.text_encoders.items()}
        unet, vae = modules.get("unet", self.unet), modules.get("vae", self.vae)
        return replace(self, text_encoders=encoders, unet=unet, vae=vae)

    def to(self, device: torch.device) -> Components:
        """Move every part with weights to `device`; returns itself."""
        for module in self.modules.values():
            module.to(device)
        return self


class Family(Protocol):
    """One model family. Stateless: every method takes the components it works on."""

    architecture: str
    """The family's name in the modelspec standard (`modelspec.architecture`)."""
    kohya_version: str
    """The family's name in kohya's metadata (`ss_base_model_version`)."""
    layout: FamilyLayout
    """What its folders look like."""

    def load(self, folder: Path, deferred: Set[str] = frozenset(), dtype: str = "float32") -> Components:
        """Read a model folder (diffusers layout, safetensors only), the `deferred` parts when they are first used.
        UNet and text encoders hold their weights in `dtype`: float32, bfloat16 or float16, in which they can only stay
        frozen. Raises WeightsRefused if a part is missing."""
        ...

    def encode_prompts(self, components: Components, prompts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each; longer prompts are cut at the tokenizer's length.

        What is trained on, so brackets are characters. What is drawn goes through flows/diffusion/prompts.py.
        """
        ...

    def encode_tokens(self, components: Components, tokens: Sequence[TokenRows], clip_skip: int = 0) -> Conditioning:
        """Tokens to conditioning, one row each; `tokens` has one of the same number of rows for each tokenizer.

        `clip_skip` names the text encoders' layer as A1111 does: 1 is the last one; 0 is the family's own. Raises
        InvalidRequest where an encoder has fewer layers.
        """
        ...

    def as_negative(self, components: Components, prompt: str, encoded: Conditioning) -> Conditioning:
        """What guidance draws away from, or what a dropped caption becomes, for `prompt` as `encode_prompts` has it."""
        ...

    def with_sizes(self, conditioning: Conditioning, sizes: Sequence[ImageSizes]) -> Conditioning:
        """The conditioning of images that came to be this way, one a row; unchanged where the model reads no sizes.

        Without it an image is taken as uncropped, of the size that is drawn.
        """
        ...

    def identifier_tokens(self, components: Components, identifier: str, encoder: str = "text_encoder") -> list[int]:
        """The rows of the token embedding table of `encoder` that spell `identifier`."""
        ...

    def token_embedding(self, components: Components, encoder: str = "text_encoder") -> nn.Embedding:
        """The token embedding table of `encoder`."""
        ...

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction, same shape as `noisy` (N, C, H, W)."""
        ...

    def unused_weights(self, components: Components) -> tuple[str, ...]:
        """Patterns of the names of weights that no prediction depends on: `text_encoder.*final_layer_norm.*`."""
        ...

    def noise_target(self, components: Components, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet should predict: the noise, or the velocity where the schedule says so."""
        ...

    def encode_images(self, components: Components, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, H, W) in [-1, 1] to the latent posterior's mean and standard deviation, both scaled."""
        ...

    def decode_latents(self, components: Components, latents: Tensor) -> Tensor:
        """Scaled latents to pixels (N, 3, H, W) in [-1, 1]."""
        ...

    def check_names(self, parts: Mapping[str, Iterable[str]]) -> None:
        """Raises WeightsRefused when a tensor of a part has no place in the family's single file. By names alone."""
        ...

    def original_tensors(
        self, parts: Mapping[str, Mapping[str, Tensor]], schedule: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The weights of every part of a folder under the names of the family's single file.

        `schedule` is the folder's scheduler_config.json. Raises WeightsRefused for a part without a place there.
        """
        ...
