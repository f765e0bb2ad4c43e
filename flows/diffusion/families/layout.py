"""What a model family's folder looks like on disk, so that it can be checked before anything in it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """One folder that a family needs: the classes it may be of, its weights file, and the tensors that one may hold."""

    classes: frozenset[str]
    weights: str | None = None
    tensors: re.Pattern[str] | None = None


@dataclass(frozen=True)
class FamilyLayout:
    """What the folder of a model family looks like: the pipelines it may be of, and its components by their folders."""

    pipelines: frozenset[str]
    components: Mapping[str, Component]

    @property
    def weight_files(self) -> dict[str, str]:
        """Component to its weights file inside a model folder."""
        return {name: f"{name}/{one.weights}" for name, one in sorted(self.components.items()) if one.weights}
