"""An adapter's file into a model: what it was trained on is compared with the model first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components
from flows.training.adapters.layers import NAME, AdapterForm, adapter_parameters, inject, layers_of
from flows.training.tensor_files import read_metadata, read_tensors
from storage.errors import WeightsRefused

_TEXT_PREFIX = "text_model."


def load_adapter(components: Components, path: Path, adapter: str = NAME) -> None:
    """Put the adapter of a file in diffusers' form beside the components' weights, frozen, under a name of its own
    where there are several.

    Raises WeightsRefused when the file is damaged, or is of another family or base than the components; these are
    then as they were.
    """
    tensors = _own_names(components, read_tensors(path))
    form = _form(path, tensors)
    layers = layers_of(tensors)
    for component, names in layers.items():
        for layer in names:
            _refuse_foreign(path, components, component, layer, tensors)
    for component, names in layers.items():
        module = components.modules[component]
        inject(module, form, names, adapter)
        for name, parameter in adapter_parameters(component, module, adapter).items():
            with torch.no_grad():
                parameter.copy_(tensors[name])
        module.requires_grad_(False).eval()


def _own_names(components: Components, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of these components' layers: with `text_model.` where they have it."""
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        component, _, inside = key.partition(".")
        module = components.modules.get(component)
        if module is not None and not hasattr(module, "text_model"):
            inside = inside.removeprefix(_TEXT_PREFIX)
        if inside.endswith(".lora_magnitude_vector.weight"):
            inside = inside.removesuffix(".weight")
        found[f"{component}.{inside}"] = tensor
    return found


def _form(path: Path, tensors: Mapping[str, Tensor]) -> AdapterForm:
    facts = read_metadata(path).get("lora_adapter_metadata")
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    if facts is None or len(ranks) != 1:
        raise WeightsRefused(
            "adapter",
            f"{path.name} is no adapter in diffusers' form with one rank and its own metadata "
            "(lora_adapter_metadata), as this platform writes it.",
        )
    said = cast(dict[str, Any], json.loads(facts))
    alphas = {float(value) for name, value in said.items() if name.endswith(".lora_alpha")}
    dora = any(name.endswith(".lora_magnitude_vector") for name in tensors)
    return AdapterForm(rank=ranks.pop(), alpha=alphas.pop(), dora=dora)


def _refuse_foreign(
    path: Path, components: Components, component: str, layer: str, tensors: Mapping[str, Tensor]
) -> None:
    module = components.modules.get(component)
    parts = dict(module.named_modules()) if module is not None else {}
    found = parts.get(layer)
    if isinstance(found, LoraLayer):
        found = found.get_base_layer()
    weight = found.weight if isinstance(found, nn.Linear | nn.Conv2d) else None
    down = tensors.get(f"{component}.{layer}.lora_A.weight")
    up = tensors.get(f"{component}.{layer}.lora_B.weight")
    if weight is not None and down is not None and up is not None:
        if down.shape[1:] == weight.shape[1:] and up.shape[0] == weight.shape[0]:
            return
        why = f"{component}.{layer} is {list(weight.shape)} here, and {up.shape[0]} x {list(down.shape[1:])} there"
    else:
        why = f"this model has no layer {component}.{layer} for it"
    raise WeightsRefused(
        "family", f"{path.name} was trained on another family or base: {why}. Draw with the base it names."
    )
