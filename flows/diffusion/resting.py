"""Parts of a model that nothing needs for a while leave the device that trains.

From a GPU they go to this machine's memory. On a CPU that is where they are: those that were deferred are dropped, and
read from their folder once more when a sample is drawn.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from flows.diffusion.families.deferred import drop_weights
from storage.errors import DevicesDiffer

HOST = torch.device("cpu")


class RestingParts:
    """Which parts of a model rest, off `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._parts: dict[str, nn.Module] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The parts that rest."""
        return tuple(self._parts)

    def leave(self, parts: Mapping[str, nn.Module]) -> None:
        """Take parts off the card until `back` needs them. Those that rest already stay so."""
        self._parts |= parts
        self._move(HOST)
        if self._device.type == "cuda":
            # What they held is of sizes that nothing else asks for: the steps must not grow beside it.
            torch.cuda.empty_cache()

    @contextmanager
    def back(self) -> Generator[None]:
        """In the block every part is on the card, so that images can be drawn."""
        self._move(self._device)
        try:
            yield
        finally:
            self._move(HOST)

    def _move(self, device: torch.device) -> None:
        for name, part in self._parts.items():
            if self._device.type == "cpu":
                drop_weights(part)  # in the block, whoever uses it reads it
            part.to(device)
            found = {one.device.type for one in (*part.parameters(), *part.buffers())}
            if found - {device.type}:
                raise DevicesDiffer(f"{name} is on {sorted(found)} after it was moved to {device}. Report this.")
