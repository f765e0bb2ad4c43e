"""Pictures to go on from: a source as latents, and a mask of what is drawn again."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family


def source_latents(family: Family, components: Components, source: Image.Image, width: int, height: int) -> Tensor:
    """A picture in a size, as scaled latents (1, C, H, W): the mean of what the VAE makes of it."""
    pixels = torch.from_numpy(np.asarray(resized(source, width, height), dtype=np.float32) / 127.5 - 1.0)
    batch = pixels.permute(2, 0, 1).unsqueeze(0).to(components.device)
    return family.encode_images(components, batch)[0]


def mask_latents(components: Components, mask: Image.Image, width: int, height: int) -> Tensor:
    """What is drawn again (1, 1, H, W): 1 where any pixel of a latent is more white than black in the mask, else 0."""
    grey = mask.convert("L").resize((width, height), Image.Resampling.NEAREST)
    white = torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255.0)[None, None]
    kept = torch.nn.functional.max_pool2d(white, components.vae_factor)
    return (kept >= 0.5).float().to(components.device)


def pasted(drawn: Image.Image, source: Image.Image, mask: Image.Image) -> Image.Image:
    """The drawn picture where the mask is white and the source where it is black; a grey mixes them."""
    alpha = mask.convert("L").resize(drawn.size, Image.Resampling.NEAREST)
    return Image.composite(drawn, resized(source, *drawn.size), alpha)


def resized(source: Image.Image, width: int, height: int) -> Image.Image:
    """A picture in RGB in a size, by Lanczos; the same pixels where it has that size."""
    plain = source.convert("RGB")
    return plain if plain.size == (width, height) else plain.resize((width, height), Image.Resampling.LANCZOS)
