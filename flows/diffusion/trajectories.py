"""Pictures on their way from noise to latents, each by itself, several in one call of the UNet.

Each has its own scheduler, place, prompts and noise, and a call takes the next step of those that are given to it:
they may be at other steps, and have other schedulers and guidance. A call has one of two shapes, one picture or eight,
filled up where there are fewer: a row of a batch depends on the number of rows alone, which chooses the kernels, and
not on its neighbours or its place. So a picture is a function of what was asked for, its seed and its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.diffusion.schedulers import next_latents, noised
from storage.records.generation.schedulers import SchedulerSettings

DDIM = SchedulerSettings()
ALONE, TOGETHER = 1, 8
"""The batch shapes: pictures in one call."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022), and how far its result is brought back to the contrast of the
    prediction with the prompt (`rescale`, 0 to 1; Lin et al. 2023, section 3.4)."""

    scale: float
    rescale: float = 0.0

    @property
    def needed(self) -> bool:
        """Whether a step needs two predictions: a scale of at most 1 asks for none."""
        return self.scale > 1.0

    def combine(self, without: Tensor, with_prompt: Tensor) -> Tensor:
        """One prediction (1, C, H, W) of the two."""
        guided = without + self.scale * (with_prompt - without)
        if not self.rescale:
            return guided
        axes = list(range(1, guided.dim()))
        even = guided * (with_prompt.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
        return self.rescale * even + (1 - self.rescale) * guided


@dataclass(frozen=True)
class Prompts:
    """The conditioning of one picture, one row each; `negative` is None where there is no guidance."""

    positive: Conditioning
    negative: Conditioning | None = None


@dataclass(frozen=True)
class KeptSource:
    """What of a source picture stays: its scaled latents (1, C, H, W), a mask (1, 1, H, W) that is 1 where it is drawn
    again, and the noise that the picture begins with."""

    latents: Tensor
    mask: Tensor
    noise: Tensor


class Trajectory:
    """One picture while it is drawn. Raises nothing of its own; `take` returns once the step is done."""

    def __init__(
        self,
        scheduler: Any,
        timesteps: Sequence[Tensor],
        latents: Tensor,
        prompts: Prompts,
        guidance: Guidance,
        generator: torch.Generator,
        *,
        settings: SchedulerSettings = DDIM,
        kept: KeptSource | None = None,
    ) -> None:
        """latents: (1, C, H, W) at the noise level of the first timestep."""
        self.latents, self.prompts, self.guidance = latents, prompts, guidance
        self.done, self.total = 0, len(timesteps)
        self._scheduler, self._timesteps = scheduler, timesteps
        self._settings, self._generator = settings, generator
        self._kept = kept
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def ended(self) -> bool:
        """Whether its latents are those of the picture."""
        return self.done >= self.total

    @property
    def timestep(self) -> Tensor:
        """Where its next step begins."""
        return self._timesteps[self.done]

    def scaled(self) -> Tensor:
        """Its latents as the UNet takes them at `timestep`: (1, C, H, W). Asked for once a step."""
        return self._scheduler.scale_model_input(self.latents, self.timestep)

    def take(self, prediction: Prediction) -> None:
        """One step by what the UNet predicted for `scaled`."""
        predicted = prediction.predicted
        self._seen = (prediction.scaled, self.timestep, predicted)
        generators, at = [self._generator], self.timestep
        self.latents = next_latents(self._scheduler, self._settings, predicted, at, self.latents, generators)
        self.done += 1
        if self._kept is not None:
            known = self._kept.latents
            if not self.ended:
                known = noised(self._scheduler, known, self._kept.noise, self.timestep)
            self.latents = self._kept.mask * self.latents + (1 - self._kept.mask) * known

    def clean_estimate(self, components: Components) -> Tensor:
        """The latents (1, C, H, W) that the last prediction points at, for a preview; its own before the first step.

        The UNet is given variance-preserving noise, whatever its scheduler works with (Song et al. 2021, eq. 12).
        """
        if self._seen is None:
            return self.latents
        noisy, timestep, predicted = self._seen
        products: Tensor = components.noise_schedule.alphas_cumprod
        # Of pure noise nothing points anywhere.
        alpha = products[timestep.long().clamp(0, len(products) - 1).cpu()].to(noisy).clamp(min=1e-4)
        if components.noise_schedule.config.prediction_type == "v_prediction":
            return alpha.sqrt() * noisy - (1 - alpha).sqrt() * predicted
        return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()


@dataclass(frozen=True)
class Prediction:
    """What the UNet was given of one picture, and what it predicted, guidance included: (1, C, H, W) each."""

    scaled: Tensor
    predicted: Tensor


def predict_together(
    family: Family, components: Components, trajectories: Sequence[Trajectory], shape: int
) -> list[Prediction]:
    """What each takes its next step by, from one call of the UNet for `shape` pictures. All have latents and
    conditioning of one size, and all or none have guidance.

    Raises ValueError for more than `shape` of them, or none.
    """
    if not 0 < len(trajectories) <= shape:
        raise ValueError(f"{len(trajectories)} pictures do not go into a batch of {shape}.")
    guided = trajectories[0].guidance.needed
    filled = [*trajectories, *[trajectories[0]] * (shape - len(trajectories))]
    scaled = [one.scaled() for one in trajectories]
    rows = torch.cat([*scaled, *[scaled[0]] * (shape - len(scaled))])
    timesteps = torch.stack([one.timestep.reshape(()) for one in filled]).to(rows.device)
    conditioning = _joined([one.prompts.positive for one in filled])
    if guided:
        # What is drawn away from stands first, as in the pipelines of diffusers.
        negatives = [one.prompts.negative or one.prompts.positive for one in filled]
        conditioning = _joined(negatives).then(conditioning)
        rows, timesteps = torch.cat([rows, rows]), torch.cat([timesteps, timesteps])
    predicted = family.predict(components, rows, timesteps, conditioning)
    made: list[Prediction] = []
    for place, one in enumerate(trajectories):
        with_prompt = predicted[-shape:][place : place + 1]
        whole = one.guidance.combine(predicted[place : place + 1], with_prompt) if guided else with_prompt
        made.append(Prediction(scaled[place], whole))
    return made


def advance(family: Family, components: Components, trajectories: Sequence[Trajectory], shape: int) -> None:
    """One step of each, by `predict_together`, and raises as it does."""
    for one, prediction in zip(trajectories, predict_together(family, components, trajectories, shape), strict=True):
        one.take(prediction)


def _joined(rows: Sequence[Conditioning]) -> Conditioning:
    names = rows[0].tensors
    return Conditioning({name: torch.cat([row.tensors[name] for row in rows]) for name in names})
