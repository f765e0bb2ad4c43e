"""The bytes that an estimate counts for an optimizer's state are those that the optimizer keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.lookup import optimizer_named
from storage.records.jobs.choices import TrainingOptimizer
from storage.records.jobs.costs.optimizer_states import state_bytes

SHAPES = ((128, 64), (64, 64, 3, 3), (5_000,), (300,), (16, 4), (7, 5, 1, 1))


@pytest.mark.parametrize("optimizer", list(TrainingOptimizer))
def test_the_state_is_as_large_as_it_is_counted(optimizer: TrainingOptimizer) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    group = ParameterGroup("unet", {str(at): one for at, one in enumerate(parameters)}, 1e-4, 0.01)
    made = optimizer_named(optimizer).begin([group])
    for one in parameters:
        one.grad = torch.randn(one.shape, generator=generator)
    made.step()

    # Tables of quantised values are shared by all tensors; counters have one number.
    tensors = [
        value
        for state in made.state.values()
        for name, value in state.items()
        if isinstance(value, Tensor) and value.numel() > 1 and "qmap" not in name
    ]
    assert state_bytes(optimizer, SHAPES) == pytest.approx(sum(one.nbytes for one in tensors), rel=0.001)


def test_an_unknown_optimizer_counts_as_adamw() -> None:
    assert state_bytes("of a later release", SHAPES) == state_bytes(TrainingOptimizer.ADAMW, SHAPES)
