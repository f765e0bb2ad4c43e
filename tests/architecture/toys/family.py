"""The family `toy`: Stable Diffusion 1 under another name."""

from __future__ import annotations

from flows.diffusion.families.protocol import Family
from flows.diffusion.families.sd1 import Sd1


class ToyFamily(Sd1):
    """What is trained and drawn is what Stable Diffusion 1 would."""

    architecture: str = "toy-v1"


FAMILY: Family = ToyFamily()
