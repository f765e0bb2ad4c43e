"""Generation backends by their names in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.generation.backends.protocol import Backend
from storage.records.jobs.choices import GenerationBackend, check_choice


def backend_named(name: str) -> Backend:
    """The backend `name`. Raises InvalidRequest naming the known ones."""
    check_choice(GenerationBackend, "backend", name)
    return import_module(f"flows.generation.backends.{name}").BACKEND
