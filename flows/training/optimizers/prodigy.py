"""Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101): AdamW whose rate grows with the distance that it covers.

It finds one rate for all groups, and takes the first group's learning rate as its factor for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_optimizer import Prodigy
from torch import nn
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class StoppableProdigy(Prodigy):
    """Prodigy some of whose parameters may stop to train."""

    @torch.no_grad()
    def leave_out(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take the parameters' part out of both sums whose quotient is the distance.

        The denominator is a sum over what trains, the numerator one number of all steps so far. Without this the
        quotient would jump with the parameters that leave the denominator, and the rate with it: for good, since it
        never falls.
        """
        numerator = self.param_groups[0].get("d_numerator")
        left_out = {id(parameter) for parameter in parameters}
        parts: dict[bool, float] = {True: 0.0, False: 0.0}
        # In the groups' order: that of the state is another after a resume, and sums would round otherwise.
        for parameter in (one for group in self.param_groups for one in group["params"]):
            if "s" in (state := self.state.get(parameter, {})):
                parts[id(parameter) in left_out] += float(state["s"].abs().sum())
        if numerator is None or not parts[True]:
            return
        numerator = numerator * (parts[False] / (parts[True] + parts[False]))
        for group in self.param_groups:
            group["d_numerator"] = numerator


class DistanceAdaptation:
    """The optimizer `prodigy`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With bias correction and a distance that the warm-up does not shrink: its authors' advice for diffusion."""
        return StoppableProdigy(group_settings(groups), betas=(0.9, 0.999), bias_correction=True, safeguard_warmup=True)


OPTIMIZER: OptimizerKind = DistanceAdaptation()
