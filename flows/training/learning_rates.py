"""The learning-rate schedule: each group's rate as a function of the step."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup

WARM_UP_STEPS = 10


def warm_up(step: int) -> float:
    """The part of the learning rate that step `step` (from 0) uses: a line to 1 over the first steps, then 1."""
    return min(1.0, (step + 1) / WARM_UP_STEPS)


def set_learning_rates(optimizer: Optimizer, groups: Sequence[ParameterGroup], step: int) -> None:
    """Each group's rate at `step`: a pure function of the recipe and the step, so a resume needs no scheduler state."""
    for settings, group in zip(optimizer.param_groups, groups, strict=True):
        settings["lr"] = group.learning_rate * warm_up(step)
