"""Random numbers as pure functions of what they are for: no generator state outlives a draw."""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, purpose: str, counter: int) -> torch.Generator:
    """A CPU generator that is a pure function of its arguments; two purposes never share a stream."""
    return torch.Generator("cpu").manual_seed(counter_seed(seed, purpose, counter))


def counter_seed(seed: int, purpose: str, counter: int) -> int:
    """63 bits of SHA-256 over the arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
