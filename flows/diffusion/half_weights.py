"""Frozen weights in 16 bits: half of their memory, while activations are float32 or what autocast makes of them.

A layer casts its weights to what it computes in, and forgets the cast ones. The backward pass casts them again: torch's
own layers would keep a float32 copy of each for as long as the activations are kept. Norms stay float32, as autocast
has them. So a layer's result is that of torch's own with weights that were rounded to 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from flows.diffusion.finite import is_finite
from storage.errors import WeightsRefused

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
)
"""What weights may be held in, by the names that recipes of sets have for it."""


def hold(module: nn.Module, dtype: torch.dtype, called: str = "the model") -> nn.Module:
    """Let a frozen module hold linear layers, convolutions and embeddings in `dtype`, and the rest in float32.

    Returns the module, whose layers are others now. It was loaded in `dtype`: its norms are rounded to it, too.
    Raises WeightsRefused where a number is too large for `dtype`.
    """
    for layer in module.modules():
        kind = _held_kind(layer)
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if tensor.is_floating_point():
                _refuse_infinite(tensor, dtype, called)
                tensor.data = tensor.data.to(torch.float32 if kind is None else dtype)
        if kind is not None:
            layer.__class__ = kind
    return module


class HalfLinear(nn.Linear):
    """A linear layer whose weights may have fewer bits than it computes in."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        kind = _computed_in(input)
        if kind == self.weight.dtype:
            return super().forward(input)
        cast: Any = _CastLinear
        return cast.apply(input.to(kind), self.weight, self.bias)


class HalfConv2d(nn.Conv2d):
    """A convolution whose weights may have fewer bits than it computes in."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, H, W)."""
        kind = _computed_in(input)
        if kind == self.weight.dtype:
            return super().forward(input)
        cast: Any = _CastConv2d
        how = (self.stride, self.padding, self.dilation, self.groups)
        return cast.apply(input.to(kind), self.weight, self.bias, how)


class HalfEmbedding(nn.Embedding):
    """A table whose rows may have fewer bits than what is made of them."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) to (..., width), float32."""
        return super().forward(input).float()


_KINDS: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType(
    {nn.Linear: HalfLinear, nn.Conv2d: HalfConv2d, nn.Embedding: HalfEmbedding}
)


def trainable(layer: nn.Module) -> nn.Module:
    """Let a layer whose weights are in float32 again be torch's own: the others return no gradient of their weights."""
    for plain, held in _KINDS.items():
        if type(layer) is held:
            layer.__class__ = plain
    return layer


def _held_kind(layer: nn.Module) -> type[nn.Module] | None:
    """What a layer becomes; None for one that computes in its weights' own element type."""
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return None
    # By the very class: one that is made of it may compute in its own way.
    return _KINDS.get(type(layer))


def _refuse_infinite(tensor: Tensor, dtype: torch.dtype, called: str) -> None:
    if dtype is torch.float16 and not is_finite(tensor):
        raise WeightsRefused(
            "overflow",
            f"{called} has weights that are too large for fp16. Ask for frozenPrecision bf16, which has the range "
            "of fp32.",
        )


def _computed_in(input: Tensor) -> torch.dtype:
    place = input.device.type
    return torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else input.dtype


class _CastLinear(torch.autograd.Function):
    """A linear layer with frozen weights; only its input gets a gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(input, weight.to(input.dtype), None if bias is None else bias.to(input.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        return (gradient.matmul(weight.to(gradient.dtype)) if ctx.needs_input_grad[0] else None), None, None


class _CastConv2d(torch.autograd.Function):
    """A convolution with frozen weights; only its input gets a gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = input.shape, how
        return functional.conv2d(input, weight.to(input.dtype), None if bias is None else bias.to(input.dtype), *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return conv2d_input(ctx.shape, weight.to(gradient.dtype), gradient, *ctx.how), None, None, None
