"""Texts as token numbers with weights, and what the weights do to what an encoder makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from storage.errors import InvalidRequest

ROUNDING = 1e-5
"""A mean that is smaller than this share of what the numbers are is taken for rounding."""


@dataclass(frozen=True)
class TokenRows:
    """What one tokenizer makes of texts: `ids` (texts, tokens), and `weights` of that shape, None where all are 1."""

    ids: Tensor
    weights: Tensor | None = None


def cut_rows(tokenizer: Any, texts: Sequence[str]) -> TokenRows:
    """One row a text: start, its tokens, end and padding; a longer text is cut at the tokenizer's length."""
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return TokenRows(encoded.input_ids)


def emphasized(states: Tensor, weights: Tensor | None) -> Tensor:
    """Hidden states (rows, tokens, width) times the weights (rows, tokens), each row brought back to its mean.

    Source: AUTOMATIC1111/stable-diffusion-webui, emphasis "Original"; there the mean is that of the batch, here of a
    row, so that no text depends on its neighbours. Weights of None leave every bit as it is.
    """
    if weights is None:
        return states
    # Half precision is too coarse for the mean of many numbers.
    whole = states.float()
    weighted = whole * weights.to(whole.device).unsqueeze(-1)
    before, after = (one.mean(dim=(1, 2), keepdim=True) for one in (whole, weighted))
    restored = weighted * (before / after)
    # A mean of which only rounding is left, as behind a layer norm that was never trained, is none to restore.
    noise = ROUNDING * whole.abs().mean(dim=(1, 2), keepdim=True)
    return torch.where((before.abs() > noise) & (after.abs() > noise), restored, weighted).to(states.dtype)


def check_clip_skip(encoders: Iterable[nn.Module], clip_skip: int) -> None:
    """Raises InvalidRequest for a layer that one of the encoders has not. Both 0 and 1 are always there."""
    layers = min(int(encoder.config.num_hidden_layers) for encoder in encoders)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    if not 0 <= clip_skip <= layers:
        raise InvalidRequest(
            {"clipSkip": f"{clip_skip} is none of the layers of the model's text encoder; it may be 0 to {layers}"}
        )
