"""From one picture of a drawing to its trajectory: prompts encoded, noise drawn, a source brought in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor

from flows.diffusion.families.protocol import Components, Conditioning
from flows.diffusion.prompts import encode_unguided, encode_weighted
from flows.diffusion.sources import mask_latents, source_latents
from flows.diffusion.trajectories import Guidance, KeptSource, Prompts, Trajectory, noise_of
from flows.generation.engine.resident_models import ResidentModel
from storage.records.jobs.generation.drawings import Drawing, Operation

OpenPicture = Callable[[str], Image.Image]
"""A stored picture by its SHA-256. Raises BlobMissing, ImageRefused."""


def trajectory_of(model: ResidentModel, drawing: Drawing, number: int, open_picture: OpenPicture) -> Trajectory:
    """Picture `number` of a drawing at the beginning of its way. The model's adapters are switched on already.

    Raises BlobMissing for a source that is gone.
    """
    family, components = model.family, model.components
    image = drawing.images[number]
    guidance = Guidance(drawing.guidance_scale, drawing.guidance_rescale)
    noise, generator = noise_of(components, image.seed, drawing.height, drawing.width)
    scheduler, timesteps = _schedule(components, drawing)
    latents, kept = noise * scheduler.init_noise_sigma, None
    if drawing.operation in (Operation.IMG2IMG, Operation.INPAINT):
        sides = drawing.width, drawing.height
        source = source_latents(family, components, open_picture(drawing.source), *sides)
        latents = scheduler.add_noise(source, noise, timesteps[:1])
        if drawing.operation is Operation.INPAINT:
            kept = KeptSource(source, mask_latents(components, open_picture(drawing.mask), *sides))
    return Trajectory(
        scheduler,
        list(timesteps),
        latents,
        _prompts(model, drawing, image.prompt, guidance),
        guidance,
        generator,
        eta=drawing.scheduler.eta,
        kept=kept,
        noise=noise,
    )


def _prompts(model: ResidentModel, drawing: Drawing, prompt: str, guidance: Guidance) -> Prompts:
    adapters = tuple((one.sha256, one.strength) for one in drawing.adapters)

    def keep(key: tuple[object, ...], encode: Callable[[], Conditioning]) -> Conditioning:
        return model.encode((*key, adapters), encode)

    family, parts, skip = model.family, model.components, drawing.clip_skip
    if not guidance.needed:
        return Prompts(encode_unguided(family, parts, [prompt], clip_skip=skip, keep=keep), None)
    negative = drawing.negative_prompt
    return Prompts(*encode_weighted(family, parts, [prompt], negative=negative, clip_skip=skip, keep=keep))


def _schedule(components: Components, drawing: Drawing) -> tuple[Any, Tensor]:
    scheduler: Any = DDIMScheduler.from_config(components.noise_schedule.config, clip_sample=False)
    scheduler.set_timesteps(drawing.steps)
    if drawing.operation is Operation.TXT2IMG:
        return scheduler, scheduler.timesteps
    begin = drawing.steps - min(int(drawing.steps * drawing.strength), drawing.steps)
    return scheduler, scheduler.timesteps[begin:]


def group_of(drawing: Drawing, model_key: str, trajectory: Trajectory) -> tuple[object, ...]:
    """What pictures have to share to be drawn in one call of the UNet."""
    texts = tuple((name, tuple(one.shape)) for name, one in trajectory.prompts.positive.tensors.items())
    adapters = tuple((one.sha256, one.strength) for one in drawing.adapters)
    return model_key, adapters, tuple(trajectory.latents.shape), trajectory.guidance.needed, texts
