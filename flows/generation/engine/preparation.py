"""From one picture of a drawing to its trajectory: prompts encoded, noise drawn, a source brought in."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from flows.diffusion.families.protocol import Conditioning
from flows.diffusion.prompts import encode_unguided, encode_weighted
from flows.diffusion.sampler import noise_of
from flows.diffusion.schedulers import noised, scheduler_for, timesteps_for
from flows.diffusion.sources import mask_latents, source_latents
from flows.diffusion.trajectories import Guidance, KeptSource, Prompts, Trajectory
from flows.generation.engine.resident_model import ResidentModel
from storage.records.generation.drawings import Drawing, Operation

OpenPicture = Callable[[str], Image.Image]
"""A stored picture by its SHA-256. Raises BlobMissing, ImageRefused."""


def trajectory_of(model: ResidentModel, drawing: Drawing, number: int, open_picture: OpenPicture) -> Trajectory:
    """Picture `number` of a drawing at the beginning of its way. The model's adapters are switched on already.

    Raises BlobMissing for a source that is gone, InvalidRequest for a scheduler that does not take what is asked of it.
    """
    family, components = model.family, model.components
    image = drawing.images[number]
    guidance = Guidance(drawing.guidance_scale, drawing.guidance_rescale)
    noise, generator = noise_of(components, image.seed, drawing.height, drawing.width)
    scheduler = scheduler_for(drawing.scheduler, components.noise_schedule)
    goes_on = drawing.operation in (Operation.IMG2IMG, Operation.INPAINT)
    timesteps, _ = timesteps_for(scheduler, drawing.steps, drawing.strength if goes_on else 1.0)
    latents, kept = noise * scheduler.init_noise_sigma, None
    if goes_on:
        sides = drawing.width, drawing.height
        source = source_latents(family, components, open_picture(drawing.source), *sides)
        if drawing.strength < 1.0:
            latents = noised(scheduler, source, noise, timesteps[0])
        if drawing.operation is Operation.INPAINT:
            kept = KeptSource(source, mask_latents(components, open_picture(drawing.mask), *sides), noise)
    return Trajectory(
        scheduler,
        list(timesteps),
        latents,
        _prompts(model, drawing, image.prompt, guidance),
        guidance,
        generator,
        settings=drawing.scheduler,
        kept=kept,
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


def group_of(drawing: Drawing, model_key: str, trajectory: Trajectory) -> tuple[object, ...]:
    """What pictures have to share to be drawn in one call of the UNet."""
    texts = tuple((name, tuple(one.shape)) for name, one in trajectory.prompts.positive.tensors.items())
    adapters = tuple((one.sha256, one.strength) for one in drawing.adapters)
    return model_key, adapters, tuple(trajectory.latents.shape), trajectory.guidance.needed, texts
