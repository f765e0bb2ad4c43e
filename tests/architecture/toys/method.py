"""The method `toy`: trains the UNet's first layer alone."""

from __future__ import annotations

from typing import Any

from flows.diffusion.families.protocol import Components, Family
from flows.training.methods.lookup import method_named
from flows.training.methods.protocol import Method, ParameterGroup
from flows.training.version_files import VersionFiles
from storage.records.jobs.training import TrainingRecipe


class ToyTraining:
    """One run."""

    trains_text: bool = False

    def __init__(self, components: Components, recipe: TrainingRecipe) -> None:
        self._layer = components.unet.get_submodule("conv_in").requires_grad_(True)
        parameters = {f"conv_in.{name}": parameter for name, parameter in self._layer.named_parameters()}
        self.groups: tuple[ParameterGroup, ...] = (ParameterGroup("conv_in", parameters, recipe.learning_rate, 0.0),)

    def begin_step(self, step: int) -> None:
        """Nothing stops before the end."""

    def finish(self) -> frozenset[str]:
        """Freeze the layer again."""
        self._layer.requires_grad_(False)
        return frozenset({"unet"})


class ToyMethod:
    """See methods/protocol.py."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> ToyTraining:
        """Switch on the layer's gradients."""
        return ToyTraining(components, recipe)

    def export(self, *arguments: Any, **named: Any) -> VersionFiles:
        """The whole model, as of the method `full`."""
        return method_named("full").export(*arguments, **named)


METHOD: Method = ToyMethod()
