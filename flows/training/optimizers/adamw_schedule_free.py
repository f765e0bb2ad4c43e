"""Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682): it averages its steps, so that no rate has to fall.

The weights that train are not those to draw with: see AveragingOptimizer in optimizers/protocol.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_optimizer import ScheduleFreeAdamW
from torch import nn
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.protocol import OptimizerKind, group_settings


class AveragingAdamW(ScheduleFreeAdamW):
    """With an end for single parameters."""

    @torch.no_grad()
    def eval_one(self, parameter: nn.Parameter) -> None:
        """Put the average into one parameter, as `eval` does it for all. The state must be forgotten then."""
        state = self.state.get(parameter, {})
        [group] = [one for one in self.param_groups if any(parameter is other for other in one["params"])]
        if "z" in state and group["train_mode"]:
            parameter.lerp_(end=state["z"], weight=1.0 - 1.0 / group["betas"][0])


class ScheduleFree:
    """The optimizer `adamw_schedule_free`. See optimizers/protocol.py."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """With the rates and epsilon of `adamw`; the warm-up is the schedule's."""
        return AveragingAdamW(group_settings(groups), betas=(0.9, 0.999), eps=1e-8)


OPTIMIZER: OptimizerKind = ScheduleFree()
