"""Copies of a training's state in this machine's memory, so that it can be written while the next steps run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flows.runs.host_memory import free_host_bytes
from flows.training.checkpoints import CheckpointContent

SHARE_OF_FREE = 2
"""A copy takes at most this part (1 / N) of the memory that is free: the rest is for what the steps grow to."""
SHARE_OF_MODEL = 10
"""On a CPU, where a copy lies in the memory of the steps: at most this part (1 / N) of the model's own weights, so that
the whole fit needs at most 1.1 times the memory of its steps. Adapters fit, a whole model never does."""


class HostCopies:
    """Buffers for one copy, made when the first is taken and used again for each later one.

    `device` is where the training is, `model_bytes` what the weights of all parts take.
    """

    def __init__(self, device: torch.device, model_bytes: int, free_bytes: Callable[[], int] = free_host_bytes) -> None:
        self._free = free_bytes
        self._limit = model_bytes // SHARE_OF_MODEL if device.type == "cpu" else None
        self._buffers: dict[str, Tensor] = {}

    @property
    def size(self) -> int:
        """Bytes that the buffers take."""
        return sum(one.numel() * one.element_size() for one in self._buffers.values())

    def fit(self, content: CheckpointContent) -> bool:
        """Whether there is memory for a copy of this content. The buffers that are there count as free."""
        if self._limit is not None and content.size > self._limit:
            return False
        return content.size <= (self._free() + self.size) // SHARE_OF_FREE

    def take(self, content: CheckpointContent) -> CheckpointContent:
        """The content as it is now. It holds until the next one is taken."""
        kept, self._buffers = self._buffers, {}
        for name, tensor in content.tensors.items():
            buffer = kept.get(name)
            if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
                # Row by row whatever the layout of the tensor is: so it is written without another copy.
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
            self._buffers[name] = buffer.copy_(tensor)
        return CheckpointContent(self._buffers, content.metadata)

    def drop(self) -> None:
        """Free the buffers."""
        self._buffers = {}
