"""Full fine-tuning: the whole UNet, the text encoder if it has a learning rate, the identifier's embedding likewise.

The VAE is always frozen. Source: Ruiz et al. 2023 (DreamBooth), section 3; the identifier's own rate is pivotal
tuning (Roich et al. 2021) reduced to one token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components, Family
from flows.training.methods.protocol import Method, ParameterGroup
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
        self._components = components
        self._identifiers: list[IdentifierRows] = []
        groups = [_group("unet", components.unet, recipe.learning_rate, recipe.weight_decay)]
        if recipe.text_encoder_learning_rate > 0:
            rate = recipe.text_encoder_learning_rate
            groups += [
                _group(name, encoder, rate, recipe.weight_decay) for name, encoder in components.text_encoders.items()
            ]
        if recipe.token_learning_rate > 0:
            rows: dict[str, nn.Parameter] = {}
            for encoder in components.text_encoders:
                tokens = family.identifier_tokens(components, recipe.identifier, encoder)
                self._identifiers.append(IdentifierRows(family.token_embedding(components, encoder), tokens))
                rows["identifier" + encoder.removeprefix("text_encoder") + ".rows"] = self._identifiers[-1].rows
            # No decay: it would pull the identifier towards zero, where no word lives.
            groups.append(ParameterGroup("identifier", rows, recipe.token_learning_rate, weight_decay=0.0))
        self.groups: tuple[ParameterGroup, ...] = tuple(groups)
        self.trains_text: bool = len(groups) > 1

    def finish(self) -> frozenset[str]:
        """Put the identifier's rows into the table and freeze everything again."""
        changed = {"unet"}
        if self.trains_text:
            changed.update(self._components.text_encoders)
        for rows in self._identifiers:
            rows.detach_from_table()
        self._identifiers.clear()
        for module in self._components.modules.values():
            module.requires_grad_(False).eval()
        return frozenset(changed)


class Full:
    """The method `full`."""

    def begin(self, family: Family, components: Components, recipe: TrainingRecipe) -> FullTraining:
        """Switch on the gradients that the recipe's learning rates ask for."""
        return FullTraining(family, components, recipe)


METHOD: Method = Full()


def _group(name: str, module: nn.Module, learning_rate: float, weight_decay: float) -> ParameterGroup:
    module.requires_grad_(True).train()
    parameters = {f"{name}.{key}": parameter for key, parameter in module.named_parameters()}
    return ParameterGroup(name, parameters, learning_rate, weight_decay)
