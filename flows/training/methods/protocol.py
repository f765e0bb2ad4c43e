"""What every training method offers: choose what trains, leave the result in the components, and write its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from flows.diffusion.families.protocol import Components, Family
from flows.training.version_files import VersionFiles
from storage.records.jobs.training import TrainingRecipe


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate. `parameters` maps each one's stable name to it."""

    name: str
    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    weight_decay: float


def parameters_of(groups: Iterable[ParameterGroup]) -> dict[str, nn.Parameter]:
    """The parameters of all groups, by their stable names."""
    return {name: parameter for group in groups for name, parameter in group.parameters.items()}


class Training(Protocol):
    """What trains in one run. The components carry it: a prediction made with them sees the newest weights."""

    groups: tuple[ParameterGroup, ...]

    @property
    def trains_text(self) -> bool:
        """Whether the conditioning of a prompt still changes: as of the step that began last."""
        ...

    def begin_step(self, step: int) -> None:
        """Called before step `step` (from 0), also before the first one after a resume: freeze what trains no longer.

        A function of the step alone, so that a resumed training freezes what an unbroken one has."""
        ...

    def finish(self) -> frozenset[str]:
        """Leave what was trained in the components, gradients off; the components that changed."""
        ...


class Method(Protocol):
    """One training method."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> Training:
        """Switch on the gradients of what the recipe trains; everything else stays frozen."""
        ...

    def export(
        self,
        family: Family,
        components: Components,
        changed: frozenset[str],
        recipe: TrainingRecipe,
        recipe_hash: str,
        target: Path,
        between_files: Callable[[], None] = lambda: None,
    ) -> VersionFiles:
        """Write what trained into a new folder `target`, equal bytes for equal weights; `changed` is from `finish`.

        `between_files` is called before each file. Raises WeightsRefused if what was written is not what was trained.
        """
        ...
