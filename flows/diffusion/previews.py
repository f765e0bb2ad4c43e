"""Small pictures of what is being drawn, without its decoder: a linear map from latents to colours.

The map is fitted to the model's own VAE, so it fits every model: half a dozen small latents are decoded once. At 1024
px a decoder takes seconds and 3 GB, the map a millisecond.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from flows.diffusion.families.protocol import Components, Family
from flows.diffusion.sampler import to_image

_SAMPLES, _SIDE, _SEED = 6, 16, 0


def fit_colours(family: Family, components: Components) -> Tensor:
    """The map (C + 1, 3) from a scaled latent and 1 to red, green and blue in [-1, 1], by least squares."""
    config: Any = components.unet.config
    generator = torch.Generator("cpu").manual_seed(_SEED)
    shape = (1, config.in_channels, _SIDE, _SIDE)
    latents: list[Tensor] = []
    colours: list[Tensor] = []
    with torch.no_grad():
        for _ in range(_SAMPLES):
            # Smooth, since neighbours of what a model draws are alike, as those of noise are not.
            size = (1, config.in_channels, _SIDE // 4, _SIDE // 4)
            coarse = torch.randn(size, generator=generator, dtype=torch.float32) * 1.5
            smooth = functional.interpolate(coarse, size=shape[-2:], mode="bilinear").to(components.device)
            pixels = family.decode_latents(components, smooth)
            small = functional.avg_pool2d(pixels, components.vae_factor)
            latents.append(_with_one(smooth))
            colours.append(small[0].flatten(1).T)
        return torch.linalg.lstsq(torch.cat(latents).double().cpu(), torch.cat(colours).double().cpu()).solution.float()


def preview(colours: Tensor, latents: Tensor) -> Image.Image:
    """An RGB picture of scaled latents (1, C, H, W), W x H pixels, by the map that `fit_colours` returns."""
    height, width = latents.shape[-2:]
    flat = _with_one(latents.float()).cpu() @ colours
    return to_image(flat.T.reshape(3, height, width))


def _with_one(latents: Tensor) -> Tensor:
    """(1, C, H, W) to (H * W, C + 1)."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
