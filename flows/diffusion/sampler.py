"""Prompts and seeds to images, as class images, samples and evaluations have them; requests have trajectories.py.

DDIM without noise (Song et al. 2021, eta 0) and classifier-free guidance (Ho and Salimans 2022) in one batched UNet
call a step. Each image has its own generator, so it depends on its seed and not on its neighbours (up to the rounding
that a different batch shape brings); equal batches produce equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor

from flows.diffusion.batches import images_at_a_time, in_batches
from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.runs.liveness import advanced
from storage.records.jobs.sampled_sets import SamplerSettings


def draw_images(
    family: Family,
    components: Components,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: SamplerSettings,
    negative_prompt: str = "",
    resolution: int | None = None,
) -> list[Image.Image]:
    """One RGB image for each prompt and seed, of `resolution` pixels a side (default: the model's).

    As many are drawn at a time as memory holds (batches.py). The global random generator is not touched.
    """
    with torch.no_grad():
        first = first_latents(components, seeds, resolution)
        conditioning = guiding(family, components, prompts, sampler, negative_prompt)
        count, guided = len(prompts), is_guided(sampler)

        def draw(rows: list[int]) -> list[Image.Image]:
            both = [*rows, *(count + row for row in rows)] if guided else rows
            latents = denoise(family, components, conditioning.take(both), first[rows], sampler)
            # One at a time: at 1024 px a decoder needs 3 GB an image, and sixteen of them no card has.
            return [_decoded(family, components, one) for one in latents]

        return in_batches(count, images_at_a_time(components, first, guided=guided), draw)


def _decoded(family: Family, components: Components, latents: Tensor) -> Image.Image:
    image = to_image(family.decode_latents(components, latents.unsqueeze(0))[0])
    advanced()
    return image


def first_latents(components: Components, seeds: Sequence[int], resolution: int | None = None) -> Tensor:
    """Unit noise, one row a seed: (N, C, H, W) on the components' device, drawn on the CPU.

    H and W are `resolution` pixels (default: what the model draws) over the VAE's reduction.
    """
    side = resolution or components.resolution
    # One generator an image, since one for the batch would tie an image to its place in it.
    return torch.cat([noise_of(components, seed, side, side)[0] for seed in seeds])


def noise_of(components: Components, seed: int, height: int, width: int) -> tuple[Tensor, torch.Generator]:
    """Unit noise (1, C, H, W) of a picture of these pixels on the components' device, and the generator that drew it,
    which goes on with the noise of the steps."""
    config: Any = components.unet.config
    # On the CPU, since a CUDA generator draws other numbers from the same seed.
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, config.in_channels, height // components.vae_factor, width // components.vae_factor)
    # Of one type whatever torch's default is: libraries change it while they read a model.
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(components.device), generator


def is_guided(sampler: SamplerSettings) -> bool:
    """Whether a step needs two predictions an image: a guidance scale of at most 1 asks for none."""
    return sampler.guidance_scale > 1.0


def guiding(
    family: Family, components: Components, prompts: Sequence[str], sampler: SamplerSettings, negative_prompt: str
) -> Conditioning:
    """The conditioning of N prompts, one row each; where there is guidance behind N rows of what it draws away from."""
    guided = is_guided(sampler)
    # A set of class images has one prompt for all of its rows: it is encoded once.
    distinct = list(dict.fromkeys([*prompts, negative_prompt] if guided else prompts))
    encoded = family.encode_prompts(components, distinct)
    conditioning = encoded.take([distinct.index(prompt) for prompt in prompts])
    if guided:
        negative = family.as_negative(components, negative_prompt, encoded.take([distinct.index(negative_prompt)]))
        conditioning = negative.take([0] * len(prompts)).then(conditioning)
    return conditioning


def denoise(
    family: Family, components: Components, conditioning: Conditioning, latents: Tensor, sampler: SamplerSettings
) -> Tensor:
    """Unit noise (N, C, H, W) to scaled latents as one batch; `conditioning` is what `guiding` returns."""
    guided = is_guided(sampler)
    # DDIM's own default clips the predicted clean image to [-1, 1]. Latents have unit variance: clipping them bends
    # every colour and shape.
    scheduler: Any = DDIMScheduler.from_config(components.noise_schedule.config, clip_sample=False)
    scheduler.set_timesteps(sampler.steps)
    latents = latents * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        batch = torch.cat([latents, latents]) if guided else latents
        rows = timestep.expand(batch.shape[0]).to(batch.device)
        predicted = family.predict(components, scheduler.scale_model_input(batch, timestep), rows, conditioning)
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + sampler.guidance_scale * (with_prompt - without)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        # A batch of sixteen takes a CPU more than an hour.
        advanced()
    return latents


def to_image(pixels: Tensor) -> Image.Image:
    """Pixels (3, H, W) in [-1, 1], clipped, as an RGB image."""
    array = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(array.permute(1, 2, 0).cpu().numpy()))
