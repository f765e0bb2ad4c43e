"""Diffusers' schedulers for a model's own noise schedule: made, begun in the middle, stepped.

A drawing makes its own, since most keep what earlier steps predicted. New noise comes from one generator a row, on the
CPU, so that no row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import KDPM2AncestralDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_sasolver import SASolverScheduler
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from flows.diffusion.own_schedulers import LmsFromAnywhere, SpacedEulerAncestral, ThirdOrderSde
from flows.diffusion.two_stage_solver import TwoStageSolver
from storage.errors import InvalidRequest
from storage.records.generation.scheduler_limits import check_scheduler, first_step
from storage.records.generation.schedulers import Levels, SchedulerKind, SchedulerSettings, Spacing

CLASSES: Mapping[str, type[Any]] = {
    made.__name__: made
    for made in (
        DDIMScheduler,
        DDPMScheduler,
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        DPMSolverSinglestepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        KDPM2AncestralDiscreteScheduler,
        KDPM2DiscreteScheduler,
        LCMScheduler,
        LMSDiscreteScheduler,
        PNDMScheduler,
        SASolverScheduler,
        TCDScheduler,
        UniPCMultistepScheduler,
    )
}
"""Diffusers' classes that the table of schedulers names."""
_TRAINED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
"""What a schedule says of the model. What else a file may hold is about how somebody drew with it: solver order,
spacing of Karras, clipping."""
_OF_MODEL = ("timestep_spacing", "steps_offset", "set_alpha_to_one", "variance_type")
"""What a schedule says of how the model is drawn with, for the schedulers that its authors used."""
_SPACED = {
    Spacing.KARRAS: "use_karras_sigmas",
    Spacing.EXPONENTIAL: "use_exponential_sigmas",
    Spacing.BETA: "use_beta_sigmas",
}


def scheduler_for(settings: SchedulerSettings, noise_schedule: Any) -> Any:
    """A fresh scheduler of diffusers' methods, for `timesteps_for`; `noise_schedule` is the model's DDPMScheduler.

    Raises InvalidRequest for settings that no scheduler takes.
    """
    check_scheduler(settings)
    # A copy: some of diffusers' classes place a thousand levels when they are made, which takes a fifth of a second.
    return deepcopy(_template(settings, noise_schedule))


@lru_cache(maxsize=32)
def _template(settings: SchedulerSettings, noise_schedule: Any) -> Any:
    kind, spacing = check_scheduler(settings), Spacing(settings.spacing)
    if kind.name == "ddim" and spacing is Spacing.NORMAL:
        # DDIM's own default clips the predicted clean image to [-1, 1]. Latents have unit variance: clipping them bends
        # every colour and shape.
        return DDIMScheduler.from_config(noise_schedule.config, clip_sample=False)
    make = partial(_made, kind, spacing, noise_schedule)
    match kind.name:
        case "dpmpp_sde" | "dpmpp_2s_ancestral":
            return TwoStageSolver(make(EulerDiscreteScheduler), brownian=kind.name == "dpmpp_sde")
        case "dpmpp_3m_sde":
            return make(ThirdOrderSde)
        case "lms":
            return make(LmsFromAnywhere)
        case "euler_ancestral":
            ancestral = make(SpacedEulerAncestral)
            ancestral.levels = make(EulerDiscreteScheduler)
            return ancestral
        case _:
            return make(CLASSES[kind.diffusers])


def _made(kind: SchedulerKind, spacing: Spacing, noise_schedule: Any, made: type[Any]) -> Any:
    known = signature(made.__init__).parameters
    config = noise_schedule.config
    arguments = {name: config[name] for name in _TRAINED if name in config and name in known}
    if kind.levels is Levels.MODEL:
        arguments |= {name: config[name] for name in _OF_MODEL if name in config and name in known}
    if "timestep_spacing" in known and kind.levels is not Levels.DISTILLED:
        arguments["timestep_spacing"] = _timestep_spacing(kind, spacing, config)
    if spacing in _SPACED and _SPACED[spacing] in known:
        arguments[_SPACED[spacing]] = True
    if "clip_sample" in known:
        arguments["clip_sample"] = False
    return made(**arguments | _zero_snr(noise_schedule, known) | dict(kind.options))


def _timestep_spacing(kind: SchedulerKind, spacing: Spacing, config: Any) -> str:
    if spacing is Spacing.TRAILING:
        return "trailing"
    if kind.levels is Levels.MODEL:
        return config["timestep_spacing"]
    # k-diffusion, A1111 and ComfyUI draw with both ends of the schedule whatever the model says, and so do Karras' and
    # the other spacings need them. But a model that asks for `trailing` was trained for it (Lin et al. 2023).
    trailing = spacing is Spacing.NORMAL and config["timestep_spacing"] == "trailing"
    return "trailing" if trailing else "linspace"


def _zero_snr(noise_schedule: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a schedule that a class cannot compute: one that ends in pure noise, or of another shape."""
    config = noise_schedule.config
    rescaled = bool(config.get("rescale_betas_zero_snr"))
    if rescaled and "rescale_betas_zero_snr" in known:
        return {"rescale_betas_zero_snr": True}
    betas: Tensor = noise_schedule.betas.clone()
    if rescaled:
        # The least signal that the other classes of diffusers keep, since a level without any is infinite.
        betas[-1] = 1 - 2**-24 / noise_schedule.alphas_cumprod[-2]
    elif config["beta_schedule"] in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        return {}
    return {"trained_betas": betas.tolist()}


def timesteps_for(scheduler: Any, steps: int, strength: float = 1.0) -> tuple[Tensor, int]:
    """Set so many steps; returns the timesteps of the last `strength` (0 to 1) of them, and the first one's index.

    A timestep is one UNet call: schedulers of second order have two a step. With a source the drawing begins with
    `noised` at the first of them, without one with noise times `init_noise_sigma`.
    Raises InvalidRequest if no step is left, if there are too many, or if the spacing does not fit the model.
    """
    begin = first_step(steps, strength) * scheduler.order
    if steps > (most := scheduler.config.get("original_inference_steps", steps)):
        raise InvalidRequest({"steps": f"{steps} is more than {most}, which the scheduler takes at most."})
    if steps == 1:
        _begin_with_noise(scheduler)
    scheduler.set_timesteps(steps)
    _check_levels(scheduler, steps)
    if isinstance(scheduler, PNDMScheduler):
        return _plms_timesteps(scheduler, begin), begin
    if hasattr(scheduler, "set_begin_index"):
        # Else it looks for the first timestep among all, and takes the second of two that are rounded to the same.
        scheduler.set_begin_index(begin)
    return scheduler.timesteps[begin:], begin


def _begin_with_noise(scheduler: Any) -> None:
    # Of both ends of the schedule numpy's `linspace` takes the clean one where there is but one step.
    for placed in (scheduler, getattr(scheduler, "levels", None)):
        if isinstance(placed, ConfigMixin) and placed.config.get("timestep_spacing") == "linspace":
            placed.register_to_config(timestep_spacing="trailing")


def _check_levels(scheduler: Any, steps: int) -> None:
    # Before its noise an ancestral step goes far below its end, and where that is too far for float32 it is no number.
    # It takes a model down to pure noise, a spacing that begins there, and few steps.
    sound = scheduler.timesteps.isfinite().all()
    if isinstance(scheduler, EulerAncestralDiscreteScheduler):
        before, after = scheduler.sigmas[:-1] ** 2, scheduler.sigmas[1:] ** 2
        sound &= (after - (after * (before - after) / before) >= 0).all()
    if not sound:
        reason = f"places noise levels in {steps} steps that are too far apart for this model; ask for trailing."
        raise InvalidRequest({"spacing": reason})


def _plms_timesteps(scheduler: Any, begin: int) -> Tensor:
    # PLMS asks twice at its second timestep. Diffusers' pipelines cut its list in the middle, and so the timestep that
    # is asked for twice is lost: the latents are then taken for less noisy than they are.
    left = scheduler.timesteps.unique().flip(0)[begin:]
    return torch.cat([left[:2], left[1:]])


def noised(scheduler: Any, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Clean latents (N, C, H, W) as noisy as those of the drawing are when it comes to `timestep`, its next one."""
    shrunk = float(scheduler.scale_model_input(torch.ones((), dtype=torch.double), timestep))
    if shrunk == 1:
        return scheduler.add_noise(clean, noise, timestep.reshape(1))
    # Schedulers that work in noise levels shrink their latents to unit variance for the UNet. Their `add_noise` knows
    # no level between two steps, where DPM2 asks as well.
    return clean + noise * (shrunk**-2 - 1) ** 0.5


def next_latents(
    scheduler: Any,
    settings: SchedulerSettings,
    predicted: Tensor,
    timestep: Tensor,
    latents: Tensor,
    generators: Sequence[torch.Generator] = (),
) -> Tensor:
    """One step of a batch (N, C, H, W), with `generators` (N) for schedulers that draw noise.

    Raises ValueError if there is not one of them a row.
    """
    kind = check_scheduler(settings)
    options: dict[str, Any] = {}
    if kind.takes_eta:
        options["eta"] = settings.eta
    if kind.draws_noise or settings.eta > 0:
        if len(generators) != len(latents):
            raise ValueError(f"{len(generators)} generators for {len(latents)} rows of {kind.title}: pass one a row.")
        options["generator"] = list(generators)
    return scheduler.step(predicted, timestep, latents, **options, return_dict=False)[0]
