"""Prodigy finds one rate for all groups; one that stops to train does not change it by leaving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from flows.training.optimizers.protocol import leave_out
from tests.flows.training.optimizers import small

FIRST, STOPPED = 8, 1
"""Steps before the stop, and the group that stops: small.py's text encoder."""


def stop(training: small.SmallTraining) -> Sequence[nn.Parameter]:
    parameters = list(training.groups[STOPPED].parameters.values())
    for parameter in parameters:
        parameter.requires_grad_(False)
    leave_out(training.optimizer, parameters)
    return parameters


def sums(training: small.SmallTraining) -> tuple[float, float]:
    """Numerator and denominator of the distance, over what has a state."""
    numerator = float(training.optimizer.param_groups[0]["d_numerator"])
    return numerator, sum(float(state["s"].abs().sum()) for state in training.optimizer.state.values())


def test_the_distance_is_as_it_was_when_a_group_stops() -> None:
    training = small.begin("prodigy")
    training.train(FIRST)
    numerator, denominator = sums(training)
    parameters = stop(training)
    rest, left = sums(training)
    assert left < 0.9 * denominator, "the group had no part in it"
    assert rest / left == pytest.approx(numerator / denominator, rel=1e-6)
    assert [parameter for parameter in parameters if parameter in training.optimizer.state] == []
    assert len({float(group["d_numerator"]) for group in training.optimizer.param_groups}) == 1
    stop(training)
    assert sums(training) == (rest, left), "a second stop changed it"


def test_a_stop_after_a_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    whole, resumed = small.begin("prodigy"), small.begin("prodigy")
    whole.train(FIRST)
    whole.write(tmp_path / "before")
    resumed.read(tmp_path / "before")
    for training in (whole, resumed):
        stop(training)
        training.train(3)
    assert whole.write(tmp_path / "whole") == resumed.write(tmp_path / "resumed")


def test_nothing_happens_before_the_first_step() -> None:
    training = small.begin("prodigy")
    stop(training)
    assert "d_numerator" not in training.optimizer.param_groups[0]
