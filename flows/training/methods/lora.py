"""Low-rank adapters: two small matrices beside each chosen layer, trained by PEFT's own layers; the base stays frozen.

The UNet always, the text encoders if they have a learning rate. The adapter is never merged: what is drawn and
measured is base and adapter, and what is published is the adapter. Sources: Hu et al. 2021 (LoRA), Liu et al. 2024
(DoRA); convolutions as LoCon (LyCORIS).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import nn

from flows.diffusion.families.protocol import Components, Family
from flows.training.adapters.files import export_adapter
from flows.training.adapters.layers import adapter_parameters, form_of, inject, lay_out, seed_weights, target_layers
from flows.training.methods.protocol import Method, ParameterGroup
from flows.training.methods.text_stop import TextSteps
from flows.training.parameter_names import refuse_unmatched
from flows.training.version_files import VersionFiles
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe


class LoraTraining:
    """One run of the method `lora`. See methods/protocol.py."""

    def __init__(self, components: Components, recipe: TrainingRecipe) -> None:
        if recipe.token_learning_rate > 0:
            raise JobCannotSucceed(
                "The method lora trains no rows of the embedding table: set the token learning rate to 0, or train "
                "with the method full."
            )
        self._components = components
        rates = {"unet": recipe.learning_rate}
        encoders = components.text_encoders
        if recipe.text_encoder_learning_rate > 0:
            rates |= dict.fromkeys(encoders, recipe.text_encoder_learning_rate)
        _refuse_unmatched(components, recipe, list(rates))
        groups = [_adapt(name, components.modules[name], rate, recipe) for name, rate in rates.items()]
        self.groups: tuple[ParameterGroup, ...] = tuple(group for group in groups if group.parameters)
        text = [group for group in self.groups if group.name in encoders]
        self._text = TextSteps(
            recipe.text_encoder_steps,
            [parameter for group in text for parameter in group.parameters.values()],
            [encoders[group.name] for group in text],
        )

    @property
    def trains_text(self) -> bool:
        """Whether the adapters of a text encoder still change."""
        return self._text.trains

    def begin_step(self, step: int) -> None:
        """Freeze the text encoders' adapters once their steps are over."""
        self._text.begin_step(step)
        for group in self.groups:
            lay_out(group.parameters.values())

    def finish(self) -> frozenset[str]:
        """Freeze everything again; the adapter stays where it is, beside the base's weights."""
        for module in self._components.modules.values():
            module.requires_grad_(False).eval()
        return frozenset(group.name for group in self.groups)


class Lora:
    """The method `lora`."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> LoraTraining:
        """Put adapters into the components. Raises JobCannotSucceed when the recipe names no layer."""
        return LoraTraining(components, recipe)

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
        """The adapter in kohya's keys and in diffusers'."""
        return export_adapter(family, components, recipe, recipe_hash, target, between_files)


METHOD: Method = Lora()


def _adapt(name: str, module: nn.Module, learning_rate: float, recipe: TrainingRecipe) -> ParameterGroup:
    layers = target_layers(name, module, recipe)
    if layers:
        inject(module, form_of(recipe), layers)
        module.train()
    parameters = adapter_parameters(name, module)
    seed_weights(parameters, recipe.seed)
    return ParameterGroup(name, parameters, learning_rate, recipe.weight_decay)


def _refuse_unmatched(components: Components, recipe: TrainingRecipe, names: list[str]) -> None:
    if recipe.train_only:
        everything = msgspec.structs.replace(recipe, train_only="")
        layers = [
            f"{name}.{layer}.weight"
            for name in names
            for layer in target_layers(name, components.modules[name], everything)
        ]
        refuse_unmatched(recipe.train_only, layers)
