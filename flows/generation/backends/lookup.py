"""Generation backends by their names in a request: the files beside this one."""

from __future__ import annotations

from importlib import import_module

from flows.generation.backends.protocol import Backend, Opener
from storage.records.jobs.choices import GenerationBackend
from storage.stores import Stores


def open_backends(stores: Stores) -> dict[str, Backend]:
    """The backends that the settings name, in the order in which they are preferred where all else is equal."""
    found: dict[str, Backend] = {}
    for name in GenerationBackend:
        opener: Opener = import_module(f"flows.generation.backends.{name}").BACKEND
        if (backend := opener(stores)) is not None:
            found[name.value] = backend
    return found
