"""What every generation backend offers: images of a recipe from a model folder, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from storage.records.jobs.generation import GenerationRecipe


class Backend(Protocol):
    """One engine that draws images."""

    def draw(
        self,
        family: str,
        folder: Path,
        recipe: GenerationRecipe,
        first: int = 0,
        adapter: Path | None = None,
        *,
        held_in: str,
    ) -> Iterator[bytes]:
        """PNG bytes of images `first`, `first` + 1, ... of the recipe; image i has the recipe's seed plus i.

        `folder` is a whole model; `adapter` is a file of diffusers' form to draw with beside it. `held_in` is the
        element type in which UNet and text encoders were held when the version was trained, as its recipe names it.
        Equal recipes produce equal bytes on one machine, whichever image is the first.
        """
        ...
