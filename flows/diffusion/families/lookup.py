"""Model families by their names in `darkroom.json` and in a recipe: the files beside this one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from storage.errors import WeightsRefused
from storage.records.jobs.choices import ModelFamily

if TYPE_CHECKING:  # it imports torch, which a command that names a family may do without
    from flows.diffusion.families.protocol import Family


def family_named(name: str) -> Family:
    """The family `name`. Raises WeightsRefused naming the known ones."""
    if name not in set(ModelFamily):
        known = ", ".join(ModelFamily)
        raise WeightsRefused("unknown_family", f"model family '{name}' is unknown; known are: {known}.")
    return import_module(f"flows.diffusion.families.{name}").FAMILY
