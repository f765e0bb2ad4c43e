"""Adapters in a model: which layers get one, PEFT's own layers on them, and their tensors by name.

The names of an adapter's tensors are those of diffusers and PEFT without the adapter's own:
`unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components
from flows.diffusion.half_weights import trainable
from flows.training.data import generator_for
from storage.errors import JobCannotSucceed
from storage.records.jobs.adapter_layers import is_target
from storage.records.jobs.costs.optimizer_states import FLOAT
from storage.records.jobs.trained_parts import matches
from storage.records.jobs.training import TrainingRecipe

NAME = "default"
"""What PEFT calls the adapter inside a model; diffusers' and PEFT's own default."""

_OF_ADAPTER = re.compile(r"(.+\.lora_(?:A|B|magnitude_vector))\.([^.]+)(\.weight)")


@dataclass(frozen=True)
class AdapterForm:
    """What all of an adapter's layers share. A layer adds alpha / rank times its product to the layer's own weight."""

    rank: int
    alpha: float
    dora: bool = False
    dropout: float = 0.0

    def config(self, layers: Iterable[str]) -> LoraConfig:
        """PEFT's configuration of an adapter on exactly these layers of one module."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            use_dora=self.dora,
            target_modules=list(layers),
        )


def form_of(recipe: TrainingRecipe) -> AdapterForm:
    """What a recipe of the method `lora` asks for."""
    return AdapterForm(recipe.lora_rank, recipe.lora_alpha, recipe.lora_dora, recipe.lora_dropout)


def target_layers(name: str, module: nn.Module, recipe: TrainingRecipe) -> list[str]:
    """The layers of component `name` that the recipe wants adapters on, by their names inside it, in its order.

    Raises JobCannotSucceed when there are none.
    """
    found = [
        layer
        for layer, part in module.named_modules()
        if _may_carry(part) and is_target(layer, _kernel_of(part), recipe.lora_targets, recipe.lora_conv)
        if not recipe.train_only or matches(recipe.train_only, f"{name}.{layer}.weight")
    ]
    if not found and not recipe.train_only:
        raise JobCannotSucceed(
            f"'{recipe.lora_targets}' names no layer of this base's {name}. Ask for other lora_targets: all-linear "
            "fits every model."
        )
    return found


def inject(module: nn.Module, form: AdapterForm, layers: list[str], adapter: str = NAME) -> None:
    """Put an adapter on these layers, in float32 and with gradients; the module's own weights are frozen, and other
    adapters as well.

    Its numbers are those of PEFT's own start, drawn from the global generator, which is put back.
    """
    device = next(module.parameters()).device
    # PEFT warns of an adapter beside another, which it finds by this; here several are meant.
    vars(module).pop("peft_config", None)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        inject_adapter_in_model(form.config(layers), module, adapter_name=adapter)
    for name, parameter in module.named_parameters():
        match = _OF_ADAPTER.fullmatch(name)
        own = match is not None and match[2] == adapter
        parameter.requires_grad_(own)
        if own:
            # PEFT makes them of the layer's type; half the digits of a small learning rate would be lost in bfloat16.
            parameter.data = parameter.data.float()
    for part in module.modules():
        if isinstance(part, LoraLayer) and adapter in part.lora_A:
            # PEFT makes them of the class of the layer that they stand beside, which may be one for frozen weights.
            trainable(part.lora_A[adapter])
            trainable(part.lora_B[adapter])
        if isinstance(part, LoraLayer) and adapter in part.lora_magnitude_vector:
            _measure_lengths(part, adapter)


def remove(module: nn.Module, adapter: str) -> None:
    """Take an adapter out of a module again, were it put in by half only; a layer that has no other is the module's
    own again, and all of the module is frozen."""
    for name, part in list(module.named_modules()):
        if not isinstance(part, LoraLayer):
            continue
        # First: PEFT turns to another one by itself where the one that goes was on.
        part.set_adapter([one for one in part.active_adapters if one != adapter], inference_mode=True)
        part.delete_adapter(adapter)
        if not any(others for others in (part.r, part.lora_A, part.lora_B, part.lora_magnitude_vector)):
            holder, _, last = name.rpartition(".")
            setattr(module.get_submodule(holder), last, part.get_base_layer())
    if not carries_adapters(module):
        vars(module).pop("peft_config", None)
    module.requires_grad_(False)


def carriers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that an adapter can be put on, without those beside them, by their names inside the module."""
    found: dict[str, nn.Module] = {}
    inside = ()
    for name, part in module.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(part, LoraLayer):
            inside, part = (f"{name}.",), part.get_base_layer()
        if _may_carry(part):
            found[name] = part
    return found


def without_adapters(module: nn.Module) -> nn.Module:
    """A module of its own with the same tensors and without the adapters beside them: what the adapters were put on,
    with no number of it in memory twice."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    plain = deepcopy(module, shared)
    for name, part in list(plain.named_modules()):
        if isinstance(part, LoraLayer):
            holder, _, last = name.rpartition(".")
            setattr(plain.get_submodule(holder), last, part.get_base_layer())
    return plain


def _measure_lengths(layer: LoraLayer, adapter: str) -> None:
    """Measure DoRA's lengths in float32: PEFT measured those of weights in 16 bits in these, and an adapter that has
    learned nothing would change what the base draws."""
    weight: Any = layer.get_base_layer().weight
    lengths: Any = layer.lora_magnitude_vector[adapter]
    if weight.element_size() < FLOAT:
        none = torch.zeros((), device=weight.device)
        lengths.weight.data = lengths.get_weight_norm(weight.float(), none, 1.0).detach()


def seed_weights(parameters: Mapping[str, nn.Parameter], seed: int) -> None:
    """Draw the first numbers again, each tensor's from (seed, name): on every device and in any company the same.

    The distribution is PEFT's own: lora_A as a linear layer's weights (Kaiming uniform), lora_B zero.
    """
    for name, parameter in parameters.items():
        if name.endswith(".lora_A.weight"):
            drawn = torch.empty(parameter.shape)
            generator = generator_for(seed, f"adapter/{name}", 0)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            with torch.no_grad():
                parameter.copy_(drawn)


def lay_out(parameters: Iterable[nn.Parameter]) -> None:
    """Lay parameters out row by row: PEFT's DoRA flattens a convolution's weights without copying them."""
    for parameter in parameters:
        if not parameter.data.is_contiguous():
            parameter.data = parameter.data.contiguous()


def adapter_parameters(name: str, module: nn.Module, adapter: str = NAME) -> dict[str, nn.Parameter]:
    """An adapter's tensors in component `name`, by the names of diffusers' files."""
    found: dict[str, nn.Parameter] = {}
    for inside, parameter in module.named_parameters():
        match = _OF_ADAPTER.fullmatch(inside)
        if match and match[2] == adapter:
            # DoRA's lengths are a parameter of a layer of PEFT's, and stand in files without its `.weight`.
            ending = "" if match[1].endswith("magnitude_vector") else match[3]
            found[f"{name}.{match[1]}{ending}"] = parameter
    return found


def carries_adapters(module: nn.Module) -> bool:
    """Whether any layer of a module has an adapter beside it."""
    return any(isinstance(part, LoraLayer) for part in module.modules())


def adapter_tensors(components: Components) -> dict[str, Tensor]:
    """All of an adapter's tensors in these components, by the names of diffusers' files; none when there is none."""
    return {
        key: parameter.detach()
        for name, module in sorted(components.modules.items())
        for key, parameter in adapter_parameters(name, module).items()
    }


def layers_of(tensors: Mapping[str, object]) -> dict[str, list[str]]:
    """Component to the layers that an adapter's tensors are of, sorted, by their names inside it."""
    layers: dict[str, set[str]] = {}
    for key in tensors:
        component, _, inside = key.partition(".")
        layers.setdefault(component, set()).add(inside.rpartition(".lora_")[0])
    return {component: sorted(names) for component, names in sorted(layers.items())}


def adapter_metadata(tensors: Mapping[str, object], form: AdapterForm) -> str:
    """What diffusers reads under `lora_adapter_metadata`: PEFT's configuration of each component, as JSON."""
    facts: dict[str, object] = {}
    for component, layers in layers_of(tensors).items():
        # In an older transformers a text encoder's names begin with `text_model.`; PEFT matches the end of a name.
        plain = [layer.removeprefix("text_model.") for layer in layers]
        facts |= {
            f"{component}.r": form.rank,
            f"{component}.lora_alpha": form.alpha,
            f"{component}.use_dora": form.dora,
            f"{component}.target_modules": plain,
        }
    return json.dumps(facts, sort_keys=True)


def _may_carry(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear | nn.Conv2d)


def _kernel_of(part: nn.Module) -> tuple[int, ...]:
    return tuple(part.kernel_size) if isinstance(part, nn.Conv2d) else ()
