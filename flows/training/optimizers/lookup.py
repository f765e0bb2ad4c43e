"""Optimizers by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.training.optimizers.protocol import OptimizerKind
from storage.records.jobs.choices import TrainingOptimizer, check_choice


def optimizer_named(name: str) -> OptimizerKind:
    """The optimizer `name`. Raises InvalidRequest naming the known ones."""
    check_choice(TrainingOptimizer, "optimizer", name)
    return import_module(f"flows.training.optimizers.{name}").OPTIMIZER
