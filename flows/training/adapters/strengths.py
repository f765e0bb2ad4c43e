"""Adapters by strength: each adds its difference to a layer's own weights, times its strength, whatever else is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class ScaledDora:
    """What PEFT asks for a DoRA's part of a layer's result, in place of its own variant.

    PEFT would scale the product alone and change the weights' lengths at any strength, and would do so to what the
    adapters before it have added as well.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def forward(self, module: Any, *, active_adapter: str, x: Tensor, result: Tensor, **_: object) -> Tensor:
        """`result` with the adapter's difference added; `x` is what the layer was given."""
        base = module.get_base_layer()
        difference = module.lora_magnitude_vector[active_adapter](
            x,
            lora_A=module.lora_A[active_adapter],
            lora_B=module.lora_B[active_adapter],
            scaling=module.scaling[active_adapter],
            base_layer=base,
            # Before the first adapter the result is the layer's own.
            base_result=result if module.active_adapters[0] == active_adapter else base(x),
            adapter_name=active_adapter,
        )
        return result + difference * self.strength


def switch(module: nn.Module, strengths: Mapping[str, float]) -> None:
    """Have a module compute with these adapters, by name, and with no other. They are added in the order of the
    mapping, DoRAs first."""
    for part in module.modules():
        if isinstance(part, LoraLayer):
            _switch_layer(part, strengths)


def _switch_layer(layer: Any, strengths: Mapping[str, float]) -> None:
    doras = layer.lora_magnitude_vector
    # One of strength 0 would add zeros, which the base's own result may lose digits by.
    names = [name for name, strength in strengths.items() if name in layer.lora_A and strength]
    names.sort(key=lambda name: name not in doras)
    for name in names:
        if name in doras:
            layer.lora_variant[name] = ScaledDora(strengths[name])
        else:
            layer.set_scale(name, strengths[name])
    layer.enable_adapters(bool(names))
    layer.set_adapter(names, inference_mode=True)
