"""The backend `toy`: an image of one colour, by its seed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from flows.generation.backends.protocol import Backend
from storage.records.jobs.generation import GenerationRecipe


class ToyBackend:
    """Draws without the model."""

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
        """PNG bytes of images `first`, `first` + 1, ..."""
        for number in range(first, recipe.count):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (recipe.seed + number, 0, 0)).save(buffer, "PNG")
            yield buffer.getvalue()


BACKEND: Backend = ToyBackend()
