"""The step from which the text encoders are frozen, for methods that train them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class TextSteps:
    """Freezes parameters and their encoders after `steps` steps; never when `steps` is 0."""

    def __init__(self, steps: int, parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module]) -> None:
        self._steps, self._parameters, self._modules = steps, list(parameters), list(modules)
        self.trains: bool = bool(self._parameters)

    def begin_step(self, step: int) -> None:
        """Freeze at the first step (from 0) that is behind the last one."""
        if not self.trains or not self._steps or step < self._steps:
            return
        self.trains = False
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            # An optimizer passes over what has no gradient: no moment, decay or step of it changes any more.
            parameter.grad = None
        for module in self._modules:
            module.eval()
