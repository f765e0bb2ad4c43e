"""Modules that are imported when they are first used, so that a flow can be looked at without its libraries.

`prefect deploy` imports every flow's module for its parameters, and so does whoever only names a flow. With torch,
diffusers and MLflow that takes a process 16 s of a core and 660 MB. So a module with a flow imports light things, and
what it works with stands in a module beside it, imported when the flow runs:

    if TYPE_CHECKING:
        from flows.training import dreambooth_steps
    else:
        dreambooth_steps = imported_when_used("flows.training.dreambooth_steps")

The first branch is what type checks, the import linter and readers see. Beside a flow's module NAME the steps are
NAME_steps, which is how a process that starts flow runs warm finds them (`modules_of_flow`).

Upstream: python/cpython#142349 (PEP 810) adds `lazy import` to Python 3.15. When that is the oldest Python that we
support, one such line takes the place of the four.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from flows.runs.exit_hooks import skip_last_collection

STEPS = "_steps"
"""Ends the name of the module with a flow's steps."""


class LazyModule:
    """Stands for a module; each attribute is the module's own."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Callable[[str], LazyModule], tuple[str]]:
        """Pickled by its name: Prefect and Dask send functions of flows by value."""
        return imported_when_used, (self._name,)

    def __getattr__(self, attribute: str) -> object:
        """Imports the module if this process has not yet. Raises ImportError, AttributeError."""
        # inspect, copy and pickle ask every object for such names, long before anybody uses the module.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(_imported(self._name), attribute)


def imported_when_used(name: str) -> LazyModule:
    """The module of this dotted name, imported when something of it is first used."""
    return LazyModule(name)


def modules_of_flow(module: str) -> list[str]:
    """The module of a flow and that of its steps, if it has one; finds them without importing either."""
    return [module, *([module + STEPS] if find_spec(module + STEPS) else [])]


@cache
def _imported(name: str) -> ModuleType:
    skip_last_collection()  # such modules load libraries that are long to search for garbage
    return import_module(name)
