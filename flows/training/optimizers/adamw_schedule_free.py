"""Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682): it averages its steps, so that no rate has to fall.

The weights that train are not those to draw with: see AveragingOptimizer in optimizers/protocol.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytorch_optimizer import ScheduleFreeAdamW
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class ScheduleFree:
    """The optimizer `adamw_schedule_free`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With the rates and epsilon of `adamw`; the warm-up is the schedule's."""
        return ScheduleFreeAdamW(group_settings(groups), betas=(0.9, 0.999), eps=1e-8)


OPTIMIZER: OptimizerKind = ScheduleFree()
