"""What every model family offers: load a folder, encode prompts, predict, and say what export writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flows.diffusion.families.layout import FamilyLayout


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
class Components:
    """The parts of a latent diffusion model in memory: float32, evaluation mode, gradients off.

    `noise_schedule` is diffusers' DDPMScheduler with the base model's own settings (betas, prediction type).
    """

    folder: Path
    tokenizer: Any
    text_encoder: nn.Module
    vae: nn.Module
    unet: nn.Module
    noise_schedule: Any

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that hold weights, by the name of their folder."""
        return {"text_encoder": self.text_encoder, "unet": self.unet, "vae": self.vae}

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        # Asked of the weights, not kept in a field: Lightning moves modules by itself.
        return next(self.unet.parameters()).device

    def to(self, device: torch.device) -> Components:
        """Move every part with weights to `device`; returns itself."""
        for module in self.modules.values():
            module.to(device)
        return self


class Family(Protocol):
    """One model family. Stateless: every method takes the components it works on."""

    architecture: str
    """The family's name in the modelspec standard (`modelspec.architecture`)."""
    layout: FamilyLayout
    """What its folders look like."""

    def load(self, folder: Path) -> Components:
        """Read a model folder (diffusers layout, safetensors only). Raises WeightsRefused if a part is missing."""
        ...

    def encode_prompts(self, components: Components, prompts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each; longer prompts are cut at the tokenizer's length."""
        ...

    def identifier_tokens(self, components: Components, identifier: str) -> list[int]:
        """The rows of the token embedding table that spell `identifier`."""
        ...

    def token_embedding(self, components: Components) -> nn.Embedding:
        """The text encoder's token embedding table."""
        ...

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction, same shape as `noisy` (N, C, H, W)."""
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
