"""Every check by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from storage.records.jobs.choices import TrainingOptimizer
from tests.gpu.checks import (
    FAMILIES,
    Place,
    after_the_fit,
    averages,
    compiled,
    determinism,
    optimizer,
    out_of_memory,
    precision,
    real_shape,
    recomputed,
    split,
)
from tests.gpu.frozen_parts import half_base, stopped_text
from tests.gpu.trainings import METHODS


def every_check() -> Iterator[tuple[str, Callable[[Place], str]]]:
    """All of them by name, the most telling first."""

    def of(check: Callable[..., str], *arguments: Any) -> Callable[[Place], str]:
        return lambda place: check(place, *arguments)

    combinations = [(family, method) for family in FAMILIES for method in METHODS]
    for family, method in combinations:
        yield f"evaluates after the fit: {family} {method}", of(after_the_fit, family, method)
    for family, method in combinations:
        yield f"two runs and a killed one are equal: {family} {method}", of(determinism, family, method)
    yield "a real base dies, goes on and exports", real_shape
    for kind in ("bf16", "fp16"):
        for method in METHODS:
            yield f"precision {kind}: {method}", of(precision, kind, method)
    for method in METHODS:
        yield f"gradient checkpointing: {method}", of(recomputed, method)
    yield "text encoder that stops", stopped_text
    for family in FAMILIES:
        yield f"adapters beside a base in 16 bits: {family}", of(half_base, family)
    yield "split backward and accumulation", split
    for name in TrainingOptimizer:
        yield f"optimizer {name.value}", of(optimizer, name.value)
    yield "average of the weights", averages
    yield "compile", compiled
    yield "out of memory", out_of_memory
