"""Training methods by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.training.methods.protocol import Method
from storage.errors import InvalidRequest
from storage.records.jobs.choices import TrainingMethod


def method_named(name: str) -> Method:
    """The method `name`. Raises InvalidRequest naming the known ones."""
    if name not in set(TrainingMethod):
        raise InvalidRequest({"method": f"'{name}' is unknown; known are: {', '.join(TrainingMethod)}"})
    return import_module(f"flows.training.methods.{name}").METHOD
