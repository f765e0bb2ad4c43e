"""The peak of a piece of work is of that piece alone."""

from __future__ import annotations

import torch

from flows.diffusion.memory import peak_bytes, start_peak

CPU = torch.device("cpu")
MIB = 1024 * 1024


def test_a_peak_is_what_the_work_needed_and_ends_with_it() -> None:
    start_peak(CPU)
    before = peak_bytes(CPU)
    torch.ones(200 * MIB, dtype=torch.uint8)
    after = peak_bytes(CPU)
    assert 190 * MIB < after - before < 260 * MIB
    start_peak(CPU)
    assert peak_bytes(CPU) < after - 150 * MIB
