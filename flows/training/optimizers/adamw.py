"""AdamW (Loshchilov and Hutter 2019) with the moments' rates and epsilon of the diffusers example."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import AdamW, Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class FusedAdamW:
    """The optimizer `adamw`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """Fused: one kernel for all parameters."""
        return AdamW(group_settings(groups), betas=(0.9, 0.999), eps=1e-8, fused=True)


OPTIMIZER: OptimizerKind = FusedAdamW()
