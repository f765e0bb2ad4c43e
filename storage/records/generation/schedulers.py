"""How noise becomes a picture: the scheduler of a drawing, and what there is to know of each."""

from __future__ import annotations

from enum import StrEnum

import msgspec

SCHEDULERS_PAGE = "docs/reference/schedulers.md"
"""Where the whole list is."""


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler by its one name here, and what is asked of it.

    `spacing` says how its noise levels are placed (normal, karras, exponential, beta, trailing); `eta` is the share of
    new noise in each step (Song et al. 2021: 0 is DDIM, 1 is DDPM), of the schedulers that take one.
    """

    name: str = "ddim"
    spacing: str = "normal"
    eta: float = 0.0


class Spacing(StrEnum):
    """How the noise levels of the steps are placed between the most and the least noise."""

    # Even steps in time; from where to where is the scheduler's `levels`.
    NORMAL = "normal"
    # Karras et al. 2022, equation 5 with rho 7.
    KARRAS = "karras"
    # Even steps in the logarithm of the noise level.
    EXPONENTIAL = "exponential"
    # Lee et al. 2024, applied to noise levels as diffusers and A1111 do. ComfyUI applies it to timesteps.
    BETA = "beta"
    # Even steps in time that begin at the last timestep (Lin et al. 2023, table 2). Distilled and zero-SNR models
    # need it.
    TRAILING = "trailing"


class Levels(StrEnum):
    """The timesteps that `normal` means. T is the number of timesteps that the model was trained with."""

    # What the model's own schedule says: 'leading' with an offset of 1 for Stable Diffusion, as its authors drew.
    MODEL = "model"
    # From T - 1 down to 0 with both ends, as k-diffusion, A1111 and ComfyUI draw with it.
    BOTH_ENDS = "both ends"
    # From T - 1 in even steps, 0 left out: what diffusers' exponential solvers do where A1111 has both ends.
    LAST_LEFT_OUT = "last left out"
    # A part of the 50 timesteps that the model was distilled at.
    DISTILLED = "distilled"


class SchedulerKind(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a scheduler without torch.

    `title` is A1111's name of the sampler, or a name in its manner where A1111 has none. `names` are other names that
    find it. `diffusers` is the class that draws, or that it equals where `own` says that the code is ours; `options`
    are arguments of its constructor. `automatic` is the spacing that A1111 takes for it unless asked otherwise.
    `max_steps` 0 is no limit. `comfy` is ComfyUI's sampler that does the same, empty if there is none. `note` says
    where it differs from what bears its name elsewhere.
    """

    name: str
    title: str
    about: str
    names: tuple[str, ...] = ()
    diffusers: str = ""
    own: bool = False
    options: dict[str, str | int | bool] = {}
    spacings: tuple[Spacing, ...] = tuple(Spacing)
    levels: Levels = Levels.BOTH_ENDS
    automatic: Spacing = Spacing.NORMAL
    takes_eta: bool = False
    default_eta: float = 0.0
    draws_noise: bool = False
    calls: int = 1
    min_steps: int = 1
    max_steps: int = 0
    comfy: str = ""
    note: str = ""
