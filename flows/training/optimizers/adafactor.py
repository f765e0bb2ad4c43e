"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235): the second moment as sums of rows and columns, no first one.

Not torch's own: that one multiplies every step by the size of the weights, so that a learning rate for AdamW teaches
next to nothing. Here a learning rate is the size of a step, as for the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytorch_optimizer import AdaFactor
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class FactoredMoments:
    """The optimizer `adafactor`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With the recipe's learning rates and no momentum."""
        return AdaFactor(group_settings(groups), betas=(None, 0.999), scale_parameter=False, relative_step=False)


OPTIMIZER: OptimizerKind = FactoredMoments()
