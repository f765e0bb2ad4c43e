"""Weights averaged over steps: those to draw, to evaluate and to export with, where they are not the ones that train.

Two things average: an exponential moving average (EMA) that a recipe can ask for, and optimizers that need one of their
own (optimizers/protocol.py). Either way a checkpoint holds both kinds of weights.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup, parameters_of
from flows.training.optimizers.protocol import AveragingOptimizer


def ema_decay(step: int, limit: float) -> float:
    """How much of the average stays at `step` (from 1): 0 at first, then ever more, at most `limit`.

    Source: the default warm-up of diffusers' EMAModel, (1 + n) / (10 + n) with n steps before this one.
    """
    before = step - 1
    return 0.0 if before < 1 else min((1 + before) / (10 + before), limit)


class AveragedWeights:
    """The averaged weights of what trains. Without an average (`decay` 0, a plain optimizer) nothing here does a thing.

    `averages` are the EMA's by parameter, each of its parameter's shape, type and device.
    """

    def __init__(self, groups: Sequence[ParameterGroup], optimizer: Optimizer, decay: float) -> None:
        self._parameters = parameters_of(groups)
        self._optimizer, self._decay = optimizer, decay
        self._settled = False
        self.averages: dict[str, Tensor] = {}
        if decay > 0:
            self.averages = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after optimizer step `step` (from 1) into the EMA."""
        share = 1 - ema_decay(step, self._decay)
        for name, average in self.averages.items():
            # What trains no longer is its own average, and rests on another device than that.
            if self._parameters[name].requires_grad:
                average.sub_(share * (average - self._parameters[name]))

    @contextmanager
    def in_place(self) -> Generator[None]:
        """While the block runs the parameters hold the averaged weights; then the very bits that train are back."""
        if self.averages:
            self._swap()
            try:
                yield
            finally:
                self._swap()
        elif isinstance(self._optimizer, AveragingOptimizer):
            yield from self._optimizers_own(self._optimizer)
        else:
            yield

    def settle(self) -> None:
        """Leave the averaged weights in the parameters for good. A second time nothing happens."""
        if self._settled:
            return
        self._settled = True
        if self.averages:
            self._swap()
            self.averages = {}
        elif isinstance(self._optimizer, AveragingOptimizer):
            self._optimizer.eval()

    @torch.no_grad()
    def settle_some(self, names: Iterable[str]) -> None:
        """Leave the averaged weights in some parameters for good: they train no longer. Again it changes nothing."""
        for name in names:
            parameter = self._parameters[name]
            if name in self.averages:
                # Their average stays equal to them: it is in checkpoints, and what is drawn with is all averages.
                parameter.copy_(self.averages[name])
            elif isinstance(self._optimizer, AveragingOptimizer):
                self._optimizer.eval_one(parameter)

    def _swap(self) -> None:
        # The tensors change places: no other memory is needed, and no bit is rounded.
        for name, parameter in self._parameters.items():
            parameter.data, self.averages[name] = self.averages[name], parameter.data

    @torch.no_grad()
    def _optimizers_own(self, optimizer: AveragingOptimizer) -> Generator[None]:
        for parameter in self._parameters.values():
            parameter.grad = None  # in its room stands the copy: the next step makes gradients of its own
        # Its way back is rounded: without the copy a training that drew samples would end with other bytes than one
        # that was resumed behind them.
        training = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        optimizer.eval()
        try:
            yield
        finally:
            optimizer.train()
            for name, parameter in self._parameters.items():
                parameter.copy_(training[name])
