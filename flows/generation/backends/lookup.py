"""Generation backends by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.generation.backends.protocol import Backend
from storage.errors import InvalidRequest
from storage.records.jobs.choices import GenerationBackend


def backend_named(name: str) -> Backend:
    """The backend `name`. Raises InvalidRequest naming the known ones."""
    if name not in set(GenerationBackend):
        raise InvalidRequest({"backend": f"'{name}' is unknown; known are: {', '.join(GenerationBackend)}"})
    return import_module(f"flows.generation.backends.{name}").BACKEND
