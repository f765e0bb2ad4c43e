"""What every optimizer offers: steps for the groups of parameters that a method trains, and what a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup


class OptimizerKind(Protocol):
    """One optimizer."""

    moments: tuple[str, ...]
    """What of its state is kept in a checkpoint: tensors of their parameter's shape, by name. Zeros must mean the same
    as none, as before the first step. A count of steps is kept beside them, as the tensor `step`."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """An optimizer of these parameters, with one group for each, in their order."""
        ...


def group_settings(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """The groups as torch's optimizers take them."""
    return [
        {"params": list(group.parameters.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay}
        for group in groups
    ]
