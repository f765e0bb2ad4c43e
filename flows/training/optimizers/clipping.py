"""Gradients clipped by their norm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale all gradients together to a norm of at most `limit` (0 leaves them); returns the norm before."""
    if limit > 0:
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(nn.utils.get_total_norm(gradients))
