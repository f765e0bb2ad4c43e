"""The backend `local`: diffusers in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import draw_images
from flows.generation.backends.protocol import Backend
from flows.training.adapters.loading import load_adapter
from storage.records.jobs.generation import GenerationRecipe


class LocalBackend:
    """Each image is drawn alone, so it depends on nothing but its prompts, its seed and the sampler's settings."""

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
        """See backends/protocol.py. Raises WeightsRefused if the folder is not complete, or no adapter fits it."""
        # An attempt whose predecessor died after the last image: it needs no model, which takes seconds to load.
        if first >= recipe.count:
            return
        known = family_named(family)
        components = known.load(folder, dtype=held_in).to(prepare_torch(recipe.threads))
        if adapter is not None:
            load_adapter(components, adapter)
        for number in range(first, recipe.count):
            seed = recipe.seed + number
            [image] = draw_images(
                known, components, [recipe.prompt], [seed], recipe.sampler, negative_prompt=recipe.negative_prompt
            )
            yield png(image)


BACKEND: Backend = LocalBackend()
