"""Lion (Chen et al. 2023, arXiv 2302.06675): the sign of one interpolated moment."""

from __future__ import annotations

from collections.abc import Sequence

from pytorch_optimizer import Lion
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class SignedMomentum:
    """The optimizer `lion`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With the paper's rates, and decay apart from the gradient."""
        return Lion(group_settings(groups), betas=(0.9, 0.99), weight_decouple=True)


OPTIMIZER: OptimizerKind = SignedMomentum()
