"""Optimizers by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.training.optimizers.protocol import OptimizerKind
from storage.errors import InvalidRequest
from storage.records.jobs.choices import TrainingOptimizer


def optimizer_named(name: str) -> OptimizerKind:
    """The optimizer `name`. Raises InvalidRequest naming the known ones."""
    if name not in set(TrainingOptimizer):
        raise InvalidRequest({"optimizer": f"'{name}' is unknown; known are: {', '.join(TrainingOptimizer)}"})
    return import_module(f"flows.training.optimizers.{name}").OPTIMIZER
