"""One model in memory, with its adapters and the texts that it has encoded.

Adapters are loaded beside their base, under the hash of their file, and switched on for the requests that ask for them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Container
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.training.adapters.layers import adapter_parameters, remove
from flows.training.adapters.loading import load_adapter
from flows.training.adapters.strengths import switch
from storage.records.generation.drawings import DrawnAdapter

MOST_ADAPTERS = 16
"""Adapters that a model keeps besides those it draws with: PEFT walks over all of a layer's for each that comes, so
that the thirtieth takes several times as long as the first."""
ADAPTERS_SHARE = 0.25
"""How much of its own bytes the adapters of a model may take, besides those it draws with: it was given room without
them."""
ENCODED_BYTES = 64 * 2**20
"""Bytes of encoded texts that a model keeps: a hundred of SDXL's, or three hundred of SD 1.5's."""


class AdapterSource(Protocol):
    """Where the files of adapters come from."""

    def adapter(self, adapter: DrawnAdapter) -> AbstractContextManager[Path]:
        """An adapter's file on this machine, verified, which stays while the block reads it.

        Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
        """
        ...


@dataclass(frozen=True)
class HeldAdapter:
    """An adapter beside a model: PEFT's name of it there, and its bytes."""

    name: str
    size: int


class ResidentModel:
    """A model in memory. One thread draws with it; `size` and `used` may be read by others."""

    def __init__(self, family: Family, components: Components) -> None:
        self.family, self.components = family, components
        self.used = time.monotonic()
        self.encoded: OrderedDict[tuple[object, ...], Conditioning] = OrderedDict()
        """Encoded texts by text, settings and adapters."""
        seen = {id(one): one for module in components.modules.values() for one in module.parameters()}
        self._own_size = sum(one.nbytes for one in seen.values())
        self._adapters_size = self._encoded_size = 0
        self._adapters: OrderedDict[str, HeldAdapter] = OrderedDict()
        self._numbers = itertools.count()
        self._on: tuple[tuple[str, float], ...] | None = ()

    @property
    def size(self) -> int:
        """Bytes of its weights, its adapters' and of the texts that it has encoded."""
        return self._own_size + self._adapters_size + self._encoded_size

    def encode(self, key: tuple[object, ...], encode: Callable[[], Conditioning]) -> Conditioning:
        """What was encoded under a key, or is now. A text is encoded alone, so that its numbers depend on no other."""
        found = self.encoded.get(key)
        if found is not None:
            self.encoded.move_to_end(key)
            return found
        found = encode()
        # One that is larger than all may be would drive out the others and go itself.
        if _size_of(found) <= ENCODED_BYTES:
            self.encoded[key] = found
            self._encoded_size += _size_of(found)
        while self._encoded_size > ENCODED_BYTES:
            self._encoded_size -= _size_of(self.encoded.popitem(last=False)[1])
        return found

    def put_beside(self, adapters: Collection[DrawnAdapter], files: AdapterSource) -> None:
        """Load the adapters that are not here, or no longer; others that were used longest ago may go for them.

        Raises WeightsRefused for one of another family or base. Whatever it raises, the model draws as before.
        """
        wanted = {one.sha256: one for one in adapters}
        for sha256, adapter in wanted.items():
            if sha256 not in self._adapters:
                with files.adapter(adapter) as path:
                    self._make_room(path.stat().st_size, wanted)
                    self._adapters[sha256] = self._loaded(path)
            self._adapters.move_to_end(sha256)

    def holds(self, adapters: Collection[DrawnAdapter]) -> bool:
        """Whether these adapters are here."""
        return all(one.sha256 in self._adapters for one in adapters)

    def switch(self, adapters: Collection[DrawnAdapter]) -> None:
        """Draw with these adapters, which are here, and with no other. Their order is of no account."""
        wanted = _canonical(adapters)
        strengths = {self._adapters[sha256].name: strength for sha256, strength in wanted}
        if wanted == self._on:
            return
        self._on = None
        for module in self.components.modules.values():
            switch(module, strengths)
        self._on = wanted

    def _loaded(self, path: Path) -> HeldAdapter:
        name = f"a{next(self._numbers)}"
        self._on = None  # PEFT switches on what it puts in.
        load_adapter(self.components, path, name)
        parts = self.components.modules.items()
        tensors = [one for part, module in parts for one in adapter_parameters(part, module, name).values()]
        held = HeldAdapter(name, sum(one.nbytes for one in tensors))
        self._adapters_size += held.size
        return held

    def _make_room(self, size: int, wanted: Container[str]) -> None:
        """Let adapters go that are not wanted, until one more of so many bytes is within the limits."""
        limit = self._own_size * ADAPTERS_SHARE
        for sha256 in [one for one in self._adapters if one not in wanted]:
            if len(self._adapters) < MOST_ADAPTERS and self._adapters_size + size <= limit:
                break
            self._on = None
            gone = self._adapters.pop(sha256)
            for module in self.components.modules.values():
                remove(module, gone.name)
            self._adapters_size -= gone.size


def _canonical(adapters: Collection[DrawnAdapter]) -> tuple[tuple[str, float], ...]:
    """Adapters by hash with their strengths, in one order; one that is named twice has both strengths together."""
    by_hash: dict[str, list[float]] = {}
    for one in adapters:
        by_hash.setdefault(one.sha256, []).append(one.strength)
    return tuple((sha256, math.fsum(strengths)) for sha256, strengths in sorted(by_hash.items()))


def _size_of(encoded: Conditioning) -> int:
    return sum(one.nbytes for one in encoded.tensors.values())
