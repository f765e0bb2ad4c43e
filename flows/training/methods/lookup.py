"""Training methods by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.training.methods.protocol import Method
from storage.records.jobs.choices import TrainingMethod, check_choice


def method_named(name: str) -> Method:
    """The method `name`. Raises InvalidRequest naming the known ones."""
    check_choice(TrainingMethod, "method", name)
    return import_module(f"flows.training.methods.{name}").METHOD
