"""Whether numbers are numbers."""

from __future__ import annotations

import math

import torch


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds no infinite number and none that is no number."""
    if not tensor.numel():
        return True
    # In one pass, and without the tensor of as many flags that `isfinite` makes: this is time in which nothing trains.
    lowest, highest = torch.aminmax(tensor.detach())
    return math.isfinite(float(lowest)) and math.isfinite(float(highest))
