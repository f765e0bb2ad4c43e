"""In what numbers a step computes: float32, or bfloat16 and float16 where torch's autocast allows it.

Trained weights, their gradients and the optimizer's state stay float32 (Micikevicius et al. 2018, mixed precision).
With float16 the loss is scaled, so that small gradients do not vanish; the scale follows the steps, and is kept in
checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from flows.diffusion.families.protocol import Components

FP32, BF16, FP16 = "fp32", "bf16", "fp16"
AUTOCAST_DTYPES: Mapping[str, torch.dtype] = MappingProxyType({BF16: torch.bfloat16, FP16: torch.float16})
"""What autocast computes in, by a recipe's precision; none for float32."""
LOWEST_SCALE = 1.0
"""A loss that has to be made smaller than it is diverges; from 65,536 that takes 17 steps in a row that overflow."""


def loss_scaler(precision: str, device: torch.device, optimizer: Optimizer) -> GradScaler | None:
    """What scales the loss of float16; None for the others."""
    if precision != FP16:
        return None
    # A fused optimizer would divide by the scale within its step, after the gradients were clipped: by a norm that is
    # as many times too large. Without this torch's scaler and Lightning divide before.
    # Upstream, where Lightning refuses the two together for it: Lightning-AI/pytorch-lightning#15501.
    optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
    return GradScaler(device.type)


def precision_plugins(precision: str, device: torch.device, scaler: GradScaler | None) -> list[MixedPrecision]:
    """What Lightning's trainer takes for it: none for float32."""
    if precision == FP32:
        return []
    return [MixedPrecision("16-mixed" if precision == FP16 else "bf16-mixed", device.type, scaler)]


def scaler_values(scaler: GradScaler | None) -> dict[str, float]:
    """What of the scaler changes with the steps: its scale, and how many steps it has been so."""
    if scaler is None:
        return {}
    state = scaler.state_dict()
    return {"scale": float(state["scale"]), "growth_tracker": int(state["_growth_tracker"])}


def put_scaler_values(scaler: GradScaler, values: Mapping[str, float]) -> None:
    """Put back what `scaler_values` gave. Raises KeyError where something is missing."""
    state = scaler.state_dict()
    state |= {"scale": float(values["scale"]), "_growth_tracker": int(values["growth_tracker"])}
    scaler.load_state_dict(state)


def checkpoint_activations(components: Components, on: bool) -> None:
    """Whether the backward pass computes activations again instead of keeping them: the same numbers in less memory and
    about a third more time (Chen et al. 2016)."""
    _switch(components.unet, "enable_gradient_checkpointing", "disable_gradient_checkpointing", on)
    for encoder in components.text_encoders.values():
        _switch(encoder, "activation_checkpointing_enable", "activation_checkpointing_disable", on)


def _switch(module: nn.Module, enable: str, disable: str, on: bool) -> None:
    getattr(module, enable if on else disable)()
