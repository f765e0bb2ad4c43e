"""The optimizer `toy`: SGD with momentum."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import SGD, Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class ToyOptimizer:
    """See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """SGD of these groups."""
        return SGD(group_settings(groups), lr=0.0, momentum=0.9)


OPTIMIZER: OptimizerKind = ToyOptimizer()
