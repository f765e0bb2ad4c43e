"""DPM-Solver++ with two UNet calls a step and new noise: DPM++ 2S a and DPM++ SDE of k-diffusion, A1111 and ComfyUI.

Diffusers has no DPM++ 2S a, and its DPMSolverSDEScheduler needs torchsde. Here each row has its own generator, and of
the Brownian path of DPM++ SDE only the points are drawn that a step asks for. Sources: Lu et al. 2022 (DPM-Solver++,
algorithm 1); Karras et al. 2022; k-diffusion (Crowson) for the ancestral noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class TwoStageSolver:
    """A scheduler with diffusers' methods that works in noise levels, so with latents of standard deviation sigma.

    `timesteps` has 2N - 1 entries for N steps: each step asks at its level and between its levels, the last one, which
    ends without noise, at its level alone. `levels` is diffusers' Euler with the noise levels of the steps. With
    `brownian` the point between is noisy, too, as DPM++ SDE has it; without it is DPM++ 2S a.
    """

    order = 2

    def __init__(self, levels: EulerDiscreteScheduler, *, brownian: bool) -> None:
        self.config: Any = levels.config
        self.timesteps = self.sigmas = torch.empty(0)
        self.levels: Any = levels
        self._brownian = brownian
        self._index = self._begin = 0
        self._start = self._between_noise = torch.empty(0)

    @property
    def init_noise_sigma(self) -> Tensor:
        """The standard deviation of the first latents."""
        return self.levels.init_noise_sigma

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Place the levels of so many steps, and begin again."""
        levels = self.levels
        levels.set_timesteps(num_inference_steps)
        sigmas: Tensor = levels.sigmas
        ends = sigmas[1:-1] if self._brownian else _ancestral(sigmas[:-2], sigmas[1:-1])[0]
        between = (sigmas[:-2] * ends).sqrt()
        # As diffusers places a level between two timesteps: evenly in its logarithm.
        known = 0.5 * ((1 - levels.alphas_cumprod) / levels.alphas_cumprod).log().numpy()
        at = np.interp(between.log().numpy(), known, np.arange(len(known), dtype=np.float32))
        self.timesteps = _interleaved(levels.timesteps, torch.from_numpy(at).to(torch.float32)).to(device)
        self.sigmas = torch.cat([_interleaved(sigmas[:-1], between), sigmas[-1:]])
        self._index = self._begin = 0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at this entry of `timesteps`, which must be the first of its step."""
        self._index = self._begin = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The latents as the UNet takes them: of unit variance."""
        return sample / (self.sigmas[self._index] ** 2 + 1) ** 0.5

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any = None) -> Tensor:
        """The latents at the level where the drawing is: at its beginning, or after the step that was done last."""
        return original_samples + noise * self.sigmas[self._index].to(original_samples.device)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator],
        return_dict: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The next latents, and the clean ones that the prediction stands for. One generator a row."""
        clean = self._clean(model_output, sample)
        index, self._index = self._index, self._index + 1
        first = index % 2 == 0
        if first:
            self._start = sample
        if index == len(self.timesteps) - 1:
            return clean, clean
        level, following = self.sigmas[index - index % 2], self.sigmas[index - index % 2 + 2]

        def noise() -> Tensor:
            return randn_tensor(sample.shape, generator=generator, device=sample.device)

        if self._brownian:
            return self._along_path(clean, level, following, noise(), first=first), clean
        down, up = _ancestral(level, following)
        if first:
            return _towards(self._start, clean, level, self.sigmas[index + 1]), clean
        return _towards(self._start, clean, level, down) + noise() * up, clean

    def _along_path(self, clean: Tensor, level: Tensor, following: Tensor, drawn: Tensor, *, first: bool) -> Tensor:
        between = (level * following).sqrt()
        if first:
            noise = self._between_noise = drawn
        else:
            # The path from the level to the following one: what it went as far as between, and on from there.
            so_far, rest = (level - between).sqrt(), (between - following).sqrt()
            noise = (so_far * self._between_noise + rest * drawn) / (level - following).sqrt()
        down, up = _ancestral(level, between if first else following)
        return _towards(self._start, clean, level, down) + noise * up

    def _clean(self, predicted: Tensor, sample: Tensor) -> Tensor:
        sigma = self.sigmas[self._index]
        if self.config.prediction_type == "v_prediction":
            return predicted * (-sigma / (sigma**2 + 1) ** 0.5) + sample / (sigma**2 + 1)
        return sample - sigma * predicted


def _ancestral(level: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """How far down to go without noise, and how much noise then leads back up to the following level."""
    up = torch.minimum(following, (following**2 * (level**2 - following**2) / level**2) ** 0.5)
    return (following**2 - up**2) ** 0.5, up


def _towards(sample: Tensor, clean: Tensor, level: Tensor, end: Tensor) -> Tensor:
    """The exact way from one noise level to another if the prediction of the clean latents stays what it is."""
    ratio = end / level
    return ratio * sample + (1 - ratio) * clean


def _interleaved(firsts: Tensor, seconds: Tensor) -> Tensor:
    """first, second, first, second, ..., first: there is one second fewer."""
    return torch.cat([torch.stack([firsts[:-1], seconds], dim=1).flatten(), firsts[-1:]])
