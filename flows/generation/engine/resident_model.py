"""One model in memory, with its adapters and the texts that it has encoded.

Adapters are loaded beside their base, under the hash of their file, and switched on for the requests that ask for them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.training.adapters.loading import load_adapter
from flows.training.adapters.strengths import switch
from storage.records.generation.drawings import DrawnAdapter

ENCODED_TEXTS = 512
"""Encoded texts that a model keeps: a hundred kilobytes each."""


class AdapterSource(Protocol):
    """Where the files of adapters come from."""

    def adapter(self, adapter: DrawnAdapter) -> AbstractContextManager[Path]:
        """An adapter's file on this machine, verified, which stays while the block reads it.

        Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
        """
        ...


class ResidentModel:
    """A model in memory. One thread draws with it; `size` and `used` may be read by others."""

    def __init__(self, family: Family, components: Components) -> None:
        self.family, self.components = family, components
        self.used = time.monotonic()
        self.encoded: OrderedDict[tuple[object, ...], Conditioning] = OrderedDict()
        """Encoded texts by text, settings and adapters."""
        self._adapters: dict[str, str] = {}
        self._numbers = itertools.count()
        self._on: tuple[tuple[str, float], ...] | None = ()

    @property
    def size(self) -> int:
        """Bytes of its weights and of its adapters'."""
        seen = {id(one): one for module in self.components.modules.values() for one in module.parameters()}
        return sum(one.nbytes for one in seen.values())

    def encode(self, key: tuple[object, ...], encode: Callable[[], Conditioning]) -> Conditioning:
        """What was encoded under a key, or is now. A text is encoded alone, so that its numbers depend on no other."""
        found = self.encoded.pop(key, None)
        if found is None:
            found = encode()
        self.encoded[key] = found
        while len(self.encoded) > ENCODED_TEXTS:
            self.encoded.popitem(last=False)
        return found

    def put_beside(self, adapters: Collection[DrawnAdapter], files: AdapterSource) -> None:
        """Load the adapters that are not here yet.

        Raises WeightsRefused for one of another family or base. Whatever it raises, the model draws as before.
        """
        for adapter in adapters:
            if adapter.sha256 not in self._adapters:
                name = f"a{next(self._numbers)}"
                self._on = None  # PEFT switches on what it puts in.
                with files.adapter(adapter) as path:
                    load_adapter(self.components, path, name)
                self._adapters[adapter.sha256] = name

    def switch(self, adapters: Collection[DrawnAdapter]) -> None:
        """Draw with these adapters, which are here, and with no other. Their order is of no account."""
        wanted = _canonical(adapters)
        strengths = {self._adapters[sha256]: strength for sha256, strength in wanted}
        if wanted == self._on:
            return
        self._on = None
        for module in self.components.modules.values():
            switch(module, strengths)
        self._on = wanted


def _canonical(adapters: Collection[DrawnAdapter]) -> tuple[tuple[str, float], ...]:
    """Adapters by hash with their strengths, in one order; one that is named twice has both strengths together."""
    by_hash: dict[str, list[float]] = {}
    for one in adapters:
        by_hash.setdefault(one.sha256, []).append(one.strength)
    return tuple((sha256, math.fsum(strengths)) for sha256, strengths in sorted(by_hash.items()))
