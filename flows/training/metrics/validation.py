"""The loss on a fixed grid: images, noise and timesteps are the same at every measurement, so the curve is the model's.

A step's own loss is of one timestep and one noise and jumps by a factor of ten. Here each image meets the same few
timesteps of the schedule with the same noise, without weights, offsets or dropped captions. Nothing is drawn from a
generator that the training uses, and no weight changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.diffusion.modes import in_evaluation_mode
from flows.runs.liveness import advanced
from flows.training.losses import per_sample_loss
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.latents import LatentImages
from flows.training.photos.random_numbers import generator_for
from flows.training.precision import AUTOCAST_DTYPES
from storage.records.jobs.training import TrainingRecipe

TIMESTEPS = 4
"""Of the schedule, evenly spread between 5 % and 95 % of it: at its ends there is no noise, or nothing else."""
IMAGES = 4
"""Of each set at most."""
ROWS = 2
"""In a forward pass: no more than a step with a class image has, which also keeps what its backward pass needs."""


@dataclass(frozen=True)
class ValidationSet:
    """Images whose loss is measured under one name; `prompts` has one an image."""

    name: str
    latents: LatentImages
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class ValidationGrid:
    """The sets of a training. `losses` measures what the components are at that moment. `encodings` has what text
    encoders that do not train make of prompts."""

    family: Family
    recipe: TrainingRecipe
    sets: tuple[ValidationSet, ...]
    encodings: EncodingCache | None = None

    @torch.no_grad()
    def losses(self, components: Components) -> dict[str, float]:
        """Mean squared error of the noise prediction for each set, by `validation_loss.NAME`."""
        device, precision = components.device, self.recipe.precision
        autocast = torch.autocast(
            device.type, dtype=AUTOCAST_DTYPES.get(precision), enabled=precision in AUTOCAST_DTYPES
        )
        # As steps compute: the curve is to be comparable with theirs, and to need no more memory.
        with in_evaluation_mode(components.modules.values()), autocast:
            return {f"validation_loss.{one.name}": self._loss(components, one) for one in self.sets}

    def _loss(self, components: Components, one: ValidationSet) -> float:
        conditioning = {prompt: self._encoded(components, prompt) for prompt in dict.fromkeys(one.prompts)}
        length = components.noise_schedule.config.num_train_timesteps
        timesteps = torch.linspace(0.05 * length, 0.95 * length, TIMESTEPS).long()
        losses = [
            self._losses_of(components, one, image, timesteps[start : start + ROWS], start, conditioning[prompt])
            for image, prompt in enumerate(one.prompts[: len(one.latents)])
            for start in range(0, TIMESTEPS, ROWS)
        ]
        return float(torch.cat(losses).mean())

    def _encoded(self, components: Components, prompt: str) -> Conditioning:
        if self.encodings is None or self.recipe.trains_text:
            return self.family.encode_prompts(components, [prompt])
        return self.encodings.prompt(components, prompt)

    def _losses_of(
        self, components: Components, one: ValidationSet, image: int, timesteps: Tensor, first: int, text: Conditioning
    ) -> Tensor:
        """The loss of an image at some timesteps: (R,) on the CPU. `first` is the place of the first of them."""
        device, rows = components.device, len(timesteps)
        latents = one.latents.mean[image : image + 1].expand(rows, -1, -1, -1).contiguous()
        keys = range(image * TIMESTEPS + first, image * TIMESTEPS + first + rows)
        purpose = f"validation/{one.name}"
        noise = torch.stack(
            [torch.randn(latents.shape[1:], generator=generator_for(self.recipe.seed, purpose, key)) for key in keys]
        ).to(device)
        timesteps = timesteps.to(device)
        noisy = components.noise_schedule.add_noise(latents, noise, timesteps)
        predicted = self.family.predict(components, noisy, timesteps, text.take([0] * rows))
        target = self.family.noise_target(components, latents, noise, timesteps)
        losses = per_sample_loss(predicted, target).cpu()
        advanced()
        return losses


def measured_at(recipe: TrainingRecipe, step: int) -> bool:
    """Whether the loss is measured after a step; 0 is the base model's own."""
    every = recipe.validation_every
    return every > 0 and (step % every == 0 or step == recipe.last_step)


def photo_set_name(held_out: int) -> str:
    """What the photos' set is called: it says whether the training has seen them."""
    return "held_out_photos" if held_out else "training_photos"


def photos_of_set(count: int, held_out: int) -> Sequence[int]:
    """The photos, by place, that are measured: the last ones are kept out of the training, if any are."""
    return range(count - held_out, count)[:IMAGES] if held_out else range(count)[:IMAGES]
