"""Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101): AdamW whose rate grows with the distance that it covers.

It finds one rate for all groups, and takes the first group's learning rate as its factor for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytorch_optimizer import Prodigy
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class DistanceAdaptation:
    """The optimizer `prodigy`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With bias correction and a distance that the warm-up does not shrink: its authors' advice for diffusion."""
        return Prodigy(group_settings(groups), betas=(0.9, 0.999), bias_correction=True, safeguard_warmup=True)


OPTIMIZER: OptimizerKind = DistanceAdaptation()
