"""What an optimizer keeps of the tensors that it trains, in bytes. Held against the optimizers themselves in
tests/flows/training/optimizers/test_state_sizes.py."""

from __future__ import annotations

import math
from collections.abc import Iterable

from storage.records.jobs.choices import TrainingOptimizer

FLOAT = 4
"""Bytes of a number in float32."""
_WHOLE = {
    TrainingOptimizer.ADAMW: 2 * FLOAT,
    TrainingOptimizer.LION: FLOAT,
    # First and second moment, where it stood at first, and the sum of its gradients' shares.
    TrainingOptimizer.PRODIGY: 4 * FLOAT,
    TrainingOptimizer.ADAMW_SCHEDULE_FREE: 2 * FLOAT,
}
"""Bytes for each trained number."""
_QUANTISED = {TrainingOptimizer.ADAMW_8BIT: 2, TrainingOptimizer.LION_8BIT: 1}
"""Moments of one byte each; bitsandbytes leaves tensors below 4,096 elements in float32."""
_QUANTISED_FROM, _BLOCK = 4_096, 256
_STEPS = {
    TrainingOptimizer.PRODIGY: 2 * FLOAT,
    TrainingOptimizer.ADAMW_SCHEDULE_FREE: 2 * FLOAT,
    TrainingOptimizer.ADAFACTOR: 2 * FLOAT,
}
"""Bytes for each trained number that a step itself needs on a GPU, where these compute all tensors at once."""


def state_bytes(optimizer: str, shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of the state for tensors of these shapes. An optimizer that is not known here counts as AdamW."""
    known = TrainingOptimizer(optimizer) if optimizer in set(TrainingOptimizer) else TrainingOptimizer.ADAMW
    return sum(_of_tensor(known, shape) for shape in shapes)


def step_bytes(optimizer: str, elements: int) -> int:
    """Bytes that a step on a GPU needs beside the state, when the activations are gone."""
    return elements * (_STEPS.get(TrainingOptimizer(optimizer), 0) if optimizer in set(TrainingOptimizer) else 0)


def _of_tensor(optimizer: TrainingOptimizer, shape: tuple[int, ...]) -> int:
    elements = math.prod(shape)
    if moments := _QUANTISED.get(optimizer):
        if elements < _QUANTISED_FROM:
            return moments * elements * FLOAT
        # A scale for each block.
        return moments * (elements + FLOAT * -(-elements // _BLOCK))
    if optimizer is TrainingOptimizer.ADAFACTOR:
        return FLOAT * _factored(shape)
    return elements * _WHOLE.get(optimizer, 2 * FLOAT)


def _factored(shape: tuple[int, ...]) -> int:
    """Sums of rows and of columns; a vector has its whole second moment."""
    if len(shape) < 2:
        return math.prod(shape)
    return math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]
