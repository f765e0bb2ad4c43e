"""Instance and regularization images as latents, and what each training step draws from them.

Everything random at step k is a pure function of (seed, k): no generator state outlives a step, so a resumed
training draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family


@dataclass(frozen=True)
class LatentImages:
    """Images as the VAE's posterior: mean and standard deviation, each (N, C, H, W), already scaled.

    Both are kept, and each step draws its own sample, so that training on the cache equals training without one.
    """

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def sample(self, rows: Tensor, noise: Tensor) -> Tensor:
        """One posterior sample for each of `rows`: (B,) and (B, C, H, W) to (B, C, H, W)."""
        return self.mean[rows] + self.std[rows] * noise


@dataclass(frozen=True)
class TrainingImages:
    """What a fit learns from. `regularization` is None without prior preservation."""

    instance: LatentImages
    regularization: LatentImages | None


@dataclass(frozen=True)
class StepDraw:
    """Everything random in one step. Rows of the tensors: B instance rows, then B regularization rows (if any)."""

    instance_rows: Tensor
    regularization_rows: Tensor
    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor


def pixels_of(image: Image.Image, resolution: int) -> Tensor:
    """RGB pixels (3, resolution, resolution) in [-1, 1]: resized to cover (Lanczos), centre cropped, never squashed."""
    fitted = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.LANCZOS)
    array = np.asarray(fitted, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def pixels_of_all(images: Sequence[Image.Image], resolution: int) -> Tensor:
    """The pixels of every image: (N, 3, resolution, resolution)."""
    return torch.stack([pixels_of(image, resolution) for image in images])


def encode_images(
    family: Family, components: Components, images: Sequence[Image.Image], resolution: int
) -> LatentImages:
    """Every image through the VAE once, one at a time, so that an image's latent does not depend on its neighbours."""
    means: list[Tensor] = []
    stds: list[Tensor] = []
    with torch.no_grad():
        for image in images:
            pixels = pixels_of(image, resolution).unsqueeze(0).to(components.device)
            mean, std = family.encode_images(components, pixels)
            means.append(mean)
            stds.append(std)
    return LatentImages(torch.cat(means), torch.cat(stds))


def draw_step(images: TrainingImages, *, seed: int, step: int, batch_size: int, timesteps: int) -> StepDraw:
    """What step `step` (from 0) trains on; `timesteps` is the length of the noise schedule.

    Images come in shuffled passes: each is seen once before any is seen again, whatever the batch size. Drawn on the
    CPU, so that every device sees the same numbers.
    """
    generator = generator_for(seed, "step", step)
    instance = _rows_of_pass(len(images.instance), seed, "instance", step, batch_size)
    regularization = torch.empty(0, dtype=torch.long)
    if images.regularization is not None:
        regularization = _rows_of_pass(len(images.regularization), seed, "regularization", step, batch_size)
    shape = (len(instance) + len(regularization), *images.instance.mean.shape[1:])
    # The order of these draws from one generator is a part of what a seed means: another order is other weights.
    return StepDraw(
        instance_rows=instance,
        regularization_rows=regularization,
        posterior_noise=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        timesteps=torch.randint(0, timesteps, shape[:1], generator=generator),
    )


def generator_for(seed: int, purpose: str, counter: int) -> torch.Generator:
    """A CPU generator that is a pure function of its arguments; two purposes never share a stream."""
    return torch.Generator("cpu").manual_seed(counter_seed(seed, purpose, counter))


def counter_seed(seed: int, purpose: str, counter: int) -> int:
    """63 bits of SHA-256 over the arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _rows_of_pass(count: int, seed: int, purpose: str, step: int, batch_size: int) -> Tensor:
    orders: dict[int, Tensor] = {}
    rows: list[Tensor] = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        number, place = divmod(position, count)
        if number not in orders:
            orders[number] = torch.randperm(count, generator=generator_for(seed, purpose, number))
        rows.append(orders[number][place])
    return torch.stack(rows)
