"""Diffusers' schedulers with what they lack: the right sign of a term, spacings, a beginning in the middle."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from torch import Tensor


class ThirdOrderSde(DPMSolverMultistepScheduler):
    """DPM++ 3M SDE as k-diffusion has it.

    Diffusers 0.42.1 subtracts a half in the coefficient of the second difference where it has to be added: for a small
    step the coefficient tends to -1, and not to 0 as in the deterministic solver beside it.
    """

    def multistep_dpm_solver_third_order_update(
        self,
        model_output_list: list[Tensor],
        *args: Any,
        sample: Tensor | None = None,
        noise: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Diffusers' update, and the second difference once more: twice the half."""
        wrong = super().multistep_dpm_solver_third_order_update(
            model_output_list, *args, sample=sample, noise=noise, **kwargs
        )
        at = self.step_index or 0
        following, now, before, earlier = (self.sigmas[at + offset] for offset in (1, 0, -1, -2))
        newest, newer, older = model_output_list[-1], model_output_list[-2], model_output_list[-3]
        # Differences over steps in the half logarithm of the signal-to-noise ratio, in units of this step.
        step, first, second = (now / following).log(), (before / now).log(), (earlier / before).log()
        slope, slope_before = (newest - newer) * step / first, (newer - older) * step / second
        difference = (slope - slope_before) * step / (first + second)
        return wrong + difference / (following**2 + 1) ** 0.5


class SpacedEulerAncestral(EulerAncestralDiscreteScheduler):
    """Euler ancestral on the noise levels of diffusers' Euler, which takes every spacing."""

    levels: EulerDiscreteScheduler

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Place the levels of so many steps, and begin again."""
        super().set_timesteps(num_inference_steps)
        self.levels.set_timesteps(num_inference_steps)
        self.sigmas = self.levels.sigmas
        self.timesteps = self.levels.timesteps.to(device)


class LmsFromAnywhere(LMSDiscreteScheduler):
    """LMS that counts the predictions that it has.

    Diffusers counts by the step's index, so that a drawing that begins in the middle takes weights for predictions that
    were never made.
    """

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, order: int = 4, return_dict: bool = True
    ) -> Any:
        """Diffusers' step, of at most as high an order as there are predictions."""
        return super().step(model_output, timestep, sample, min(order, len(self.derivatives) + 1), return_dict)
