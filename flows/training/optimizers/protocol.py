"""What every optimizer offers: steps for the groups of parameters that a method trains.

A checkpoint keeps all that an optimizer keeps (optimizers/states.py), so none has to say what that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup, parameters_of


class OptimizerKind(Protocol):
    """One optimizer."""

    def begin(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """An optimizer of these parameters, with one group for each, in their order."""
        ...


@runtime_checkable
class AveragingOptimizer(Protocol):
    """An optimizer that trains with other weights than those to draw with, such as schedule-free ones."""

    def eval(self) -> None:
        """Put the weights to draw with into the parameters."""
        ...

    def train(self) -> None:
        """Put the weights that train into the parameters."""
        ...

    def eval_one(self, parameter: nn.Parameter) -> None:
        """Put the weights to draw with into one parameter, which trains no longer. Nothing if it has no state."""
        ...


@runtime_checkable
class OptimizerOfOneRate(Protocol):
    """An optimizer that finds one rate from all its parameters together, such as Prodigy."""

    def leave_out(self, parameters: Sequence[nn.Parameter]) -> None:
        """Some parameters train no longer: they must change the rate of the others no more, and not by leaving."""
        ...


def leave_out(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Forget the state of parameters that train no longer: no step reads it again, and it takes memory and disk."""
    if isinstance(optimizer, OptimizerOfOneRate):
        optimizer.leave_out(parameters)
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def release(optimizer: Optimizer, groups: Sequence[ParameterGroup]) -> None:
    """Drop gradients and the optimizer's state: twice to three times the trained weights, and no later phase's."""
    # Not left to the garbage collector: trainer and module hold each other, and live until it runs.
    optimizer.state.clear()
    for parameter in parameters_of(groups).values():
        parameter.grad = None


def group_settings(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """The groups as torch's optimizers take them."""
    return [
        {"params": list(group.parameters.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay}
        for group in groups
    ]


def contiguous(groups: Sequence[ParameterGroup]) -> Sequence[ParameterGroup]:
    """The same groups, their parameters laid out in memory row by row.

    bitsandbytes does that in its first step, after it has laid out its state by the old order: a resumed training would
    then compute with another layout, and round otherwise, than one that ran through.
    """
    for group in groups:
        for parameter in group.parameters.values():
            parameter.data = parameter.data.contiguous()
    return groups
