"""An adapter's file into a model: all that the file says is compared with the model before anything is put in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components
from flows.training.adapters.layers import (
    NAME,
    AdapterForm,
    adapter_parameters,
    carriers,
    inject,
    layers_of,
    remove,
)
from flows.training.tensor_files import read_metadata, read_tensors
from storage.errors import WeightsRefused

_TEXT_PREFIX = "text_model."


def load_adapter(components: Components, path: Path, adapter: str = NAME) -> None:
    """Put the adapter of a file in diffusers' form beside the components' weights, frozen, under a name of its own
    where there are several.

    Raises WeightsRefused when the file is damaged, or is of another family or base than the components. Whatever it
    raises, the components are then as they were.
    """
    tensors = _own_names(path, components, read_tensors(path))
    form = _form(path, tensors)
    layers = layers_of(tensors)
    _refuse_others(path, components, form, layers, tensors)
    try:
        for component, names in layers.items():
            _put_in(component, components.modules[component], form, names, adapter, tensors)
    except BaseException:
        for component in layers:
            remove(components.modules[component], adapter)
        raise


def _put_in(
    component: str,
    module: nn.Module,
    form: AdapterForm,
    layers: list[str],
    adapter: str,
    tensors: Mapping[str, Tensor],
) -> None:
    device = next(module.parameters()).device
    inject(module, form, layers, adapter)
    for name, parameter in adapter_parameters(component, module, adapter).items():
        with torch.no_grad():
            parameter.copy_(tensors[name])
    module.to(device).requires_grad_(False).eval()


def _own_names(path: Path, components: Components, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
    if len(found) < len(tensors):
        raise _damaged(path, "it has one tensor under two names")
    return found


def _form(path: Path, tensors: Mapping[str, Tensor]) -> AdapterForm:
    facts = read_metadata(path).get("lora_adapter_metadata")
    downs = [tensor for name, tensor in tensors.items() if name.endswith(".lora_A.weight")]
    ranks = {tensor.shape[0] if tensor.ndim else 0 for tensor in downs}
    alphas = _alphas(facts) if facts is not None else set[float]()
    if len(ranks) != 1 or len(alphas) != 1 or 0 in ranks:
        raise WeightsRefused(
            "adapter",
            f"{path.name} is no adapter in diffusers' form with one rank, one alpha and its own metadata "
            "(lora_adapter_metadata), as this platform writes it.",
        )
    [rank], [alpha] = ranks, alphas
    dora = any(name.endswith(".lora_magnitude_vector") for name in tensors)
    return AdapterForm(rank=rank, alpha=alpha, dora=dora)


def _alphas(facts: str) -> set[float]:
    """The alphas that the metadata of a file says; none where one of them is no number."""
    try:
        said = json.loads(facts)
    except ValueError:
        return set()
    entries = cast(dict[str, Any], said) if isinstance(said, dict) else {}
    found = [value for name, value in entries.items() if name.endswith(".lora_alpha")]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
        return set()
    return {float(value) for value in found}


def _refuse_others(
    path: Path,
    components: Components,
    form: AdapterForm,
    layers: Mapping[str, list[str]],
    tensors: Mapping[str, Tensor],
) -> None:
    """Raise unless the tensors are those of an adapter of this form on layers of these components, and no others."""
    expected: dict[str, tuple[int, ...]] = {}
    for component, names in layers.items():
        module = components.modules.get(component)
        known = carriers(module) if module is not None else {}
        for layer in names:
            name = f"{component}.{layer}"
            if layer not in known:
                raise _foreign(path, f"this model has no layer {name} for it")
            expected |= _shapes(name, known[layer], form)
            _refuse_other_layer(path, name, known[layer], tensors)
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise _damaged(path, f"it has no {name}")
        if name not in expected:
            raise _damaged(path, f"nothing here reads its {name}")
        if tuple(tensors[name].shape) != expected[name]:
            raise _damaged(path, f"{name} is {list(tensors[name].shape)} and not {list(expected[name])}")


def _refuse_other_layer(path: Path, name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    weight: Any = layer.weight
    down, up = tensors.get(f"{name}.lora_A.weight"), tensors.get(f"{name}.lora_B.weight")
    if down is None or up is None:
        return
    if down.shape[1:] != weight.shape[1:] or up.shape[:1] != weight.shape[:1]:
        there = " x ".join([*map(str, up.shape[:1]), str(list(down.shape[1:]))])
        raise _foreign(path, f"{name} is {list(weight.shape)} here, and {there} there")


def _shapes(name: str, layer: nn.Module, form: AdapterForm) -> dict[str, tuple[int, ...]]:
    """The tensors of an adapter on one layer, with their shapes."""
    weight: Any = layer.weight
    outputs, *inputs = weight.shape
    beyond = (1,) * (len(inputs) - 1)
    shapes = {
        f"{name}.lora_A.weight": (form.rank, *inputs),
        f"{name}.lora_B.weight": (outputs, form.rank, *beyond),
    }
    if form.dora:
        shapes[f"{name}.lora_magnitude_vector"] = (1, outputs, *beyond) if beyond else (outputs,)
    return shapes


def _foreign(path: Path, why: str) -> WeightsRefused:
    return WeightsRefused(
        "family", f"{path.name} was trained on another family or base: {why}. Draw with the base it names."
    )


def _damaged(path: Path, why: str) -> WeightsRefused:
    return WeightsRefused("adapter", f"{path.name} is no whole adapter: {why}. Export or import it again.")
