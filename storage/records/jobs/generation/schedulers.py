"""How noise becomes a picture: the scheduler of a drawing."""

from __future__ import annotations

import msgspec


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler by its one name here, and what is asked of it.

    `spacing` says how its noise levels are placed (normal, karras, exponential, beta); `eta` is the share of new noise
    in each step (Song et al. 2021: 0 is DDIM, 1 is DDPM), of the schedulers that take one.
    """

    name: str = "ddim"
    spacing: str = "normal"
    eta: float = 0.0
