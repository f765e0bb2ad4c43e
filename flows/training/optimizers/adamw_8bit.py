"""AdamW with both moments quantised by blocks of 256 (Dettmers et al. 2022), by bitsandbytes.

Parameters of fewer than 4,096 elements keep moments of 32 bits, as bitsandbytes does it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitsandbytes.optim import AdamW8bit
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, contiguous, group_settings


class QuantisedAdamW:
    """The optimizer `adamw_8bit`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With the rates and epsilon of `adamw`."""
        return AdamW8bit(group_settings(contiguous(groups)), betas=(0.9, 0.999), eps=1e-8)


OPTIMIZER: OptimizerKind = QuantisedAdamW()
