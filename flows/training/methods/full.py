"""Full fine-tuning: the whole UNet, the text encoder if it has a learning rate, the identifier's embedding likewise.

The VAE is always frozen. Source: Ruiz et al. 2023 (DreamBooth), section 3; the identifier's own rate is pivotal
tuning (Roich et al. 2021) reduced to one token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components, Family
from flows.training.exports.export import SINGLE_FILE, export_model
from flows.training.methods.protocol import Method, ParameterGroup
from flows.training.methods.text_stop import TextSteps
from flows.training.parameter_names import refuse_unmatched, selected
from flows.training.version_files import VersionFiles
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe


class IdentifierRows(nn.Module):
    """A few rows of an embedding table that train while the rest of the table stays.

    The rows are a parameter of their own, so the optimizer holds moments for them alone: the table of a CLIP encoder
    has 49,408. While attached, a look-up of those tokens returns the parameter's rows.
    """

    tokens: Tensor

    def __init__(self, table: nn.Embedding, tokens: list[int]) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(tokens, device=table.weight.device))
        self.rows = nn.Parameter(table.weight.detach()[self.tokens].clone())
        self._table = [table]  # in a list: the table is not a part of this module
        self._hook = table.register_forward_hook(self._replace)

    def _replace(self, table: nn.Module, arguments: tuple[Any, ...], embedded: Tensor) -> Tensor:
        match = arguments[0].unsqueeze(-1) == self.tokens  # (prompts, length, rows)
        own = torch.einsum("plr,rd->pld", match.to(self.rows.dtype), self.rows)
        return torch.where(match.any(-1, keepdim=True), own, embedded)

    def detach_from_table(self) -> None:
        """Write the rows into the table and stop replacing look-ups."""
        with torch.no_grad():
            self._table[0].weight[self.tokens] = self.rows.detach()
        self._hook.remove()


class FullTraining:
    """One run of the method `full`. See methods/protocol.py."""

    def __init__(self, family: Family, components: Components, recipe: TrainingRecipe) -> None:
        if recipe.frozen_precision != "fp32":
            raise JobCannotSucceed(
                f"The method full trains no weights in {recipe.frozen_precision}: set frozenPrecision to fp32, or "
                "train with the method lora."
            )
        self._components = components
        self._identifiers: list[IdentifierRows] = []
        encoders = components.text_encoders
        rates = {"unet": recipe.learning_rate}
        if recipe.text_encoder_learning_rate > 0:
            rates |= dict.fromkeys(encoders, recipe.text_encoder_learning_rate)
        tables = {_rows_of(name): name for name in encoders} if recipe.token_learning_rate > 0 else {}
        if recipe.train_only:
            everything = [key for name in rates for key in _named(name, components.modules[name])]
            refuse_unmatched(recipe.train_only, [*everything, *tables])
        groups = [_group(name, components.modules[name], rate, recipe) for name, rate in rates.items()]
        tables = selected(recipe.train_only, tables)
        if tables:
            rows: dict[str, nn.Parameter] = {}
            for key, encoder in tables.items():
                tokens = family.identifier_tokens(components, recipe.identifier, encoder)
                self._identifiers.append(IdentifierRows(family.token_embedding(components, encoder), tokens))
                rows[key] = self._identifiers[-1].rows
            # No decay: it would pull the identifier towards zero, where no word lives.
            groups.append(ParameterGroup("identifier", rows, recipe.token_learning_rate, weight_decay=0.0))
        self.groups: tuple[ParameterGroup, ...] = tuple(group for group in groups if group.parameters)
        trained = {group.name for group in self.groups if group.name != "identifier"}
        self._changed = frozenset(trained | set(tables.values()))
        text = [group for group in self.groups if group.name != "unet"]
        self._text = TextSteps(
            recipe.text_encoder_steps,
            [parameter for group in text for parameter in group.parameters.values()],
            [module for name, module in encoders.items() if name in self._changed],
        )

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder, or the identifier's embedding, still changes."""
        return self._text.trains

    def begin_step(self, step: int) -> None:
        """Freeze the text encoders, and the identifier with them, once their steps are over."""
        self._text.begin_step(step)

    def finish(self) -> frozenset[str]:
        """Put the identifier's rows into the table and freeze everything again."""
        for rows in self._identifiers:
            rows.detach_from_table()
        self._identifiers.clear()
        for module in self._components.modules.values():
            module.requires_grad_(False).eval()
        return self._changed


class Full:
    """The method `full`."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> FullTraining:
        """Switch on the gradients that the recipe's learning rates ask for.

        Raises JobCannotSucceed when a pattern of `train_only` matches nothing, and for a base in 16 bits.
        """
        return FullTraining(family, components, recipe)

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
        """The whole model: in one file, and as a diffusers folder."""
        written = export_model(family, components, changed, recipe, recipe_hash, target, between_files)
        folder = {name: written.folder / name for name in written.members()}
        return VersionFiles(written.single_file, SINGLE_FILE, written.hashes, folder)


METHOD: Method = Full()


def _rows_of(encoder: str) -> str:
    # What patterns and checkpoints call the identifier's rows of an encoder's embedding table.
    return "identifier" + encoder.removeprefix("text_encoder") + ".rows"


def _named(name: str, module: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{name}.{key}": parameter for key, parameter in module.named_parameters()}


def _group(name: str, module: nn.Module, learning_rate: float, recipe: TrainingRecipe) -> ParameterGroup:
    parameters = selected(recipe.train_only, _named(name, module))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if parameters:
        module.train()
    return ParameterGroup(name, parameters, learning_rate, recipe.weight_decay)
