"""What every training method offers: choose what trains, and put the result back into the components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from flows.diffusion.families.protocol import Components, Family
from storage.records.jobs.training import TrainingRecipe


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate. `parameters` maps each one's stable name to it."""

    name: str
    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    weight_decay: float


class Training(Protocol):
    """What trains in one run. The components carry it: a prediction made with them sees the newest weights."""

    groups: tuple[ParameterGroup, ...]
    trains_text: bool
    """Whether the conditioning of a prompt changes during training."""

    def finish(self) -> frozenset[str]:
        """Leave the trained weights in the components' own parameters, gradients off; the components that changed."""
        ...


class Method(Protocol):
    """One training method."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> Training:
        """Switch on the gradients of what the recipe trains; everything else stays frozen."""
        ...
