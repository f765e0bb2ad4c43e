"""The images whose loss a training measures while it runs: photos, class images, and images of unrelated prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from flows.diffusion.families.protocol import Components, Family
from flows.training.metrics.comparisons import UNRELATED_PROMPTS
from flows.training.metrics.validation import (
    IMAGES,
    ValidationGrid,
    ValidationSet,
    photo_set_name,
    photos_of_set,
)
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.latents import encode_images
from flows.training.photos.materials import Materials
from flows.training.photos.pictures import Picture
from flows.training.regularization_steps import fill_set
from storage.records.jobs.sampled_sets import SamplingRecipe
from storage.records.jobs.training import TrainingRecipe, regularization_recipe
from storage.stores import Stores

FIRST_SEED = 2_000
"""Of the class images: one that no set has which a training learns from."""


def validation_grid(
    stores: Stores,
    recipe: TrainingRecipe,
    family: Family,
    components: Components,
    materials: Materials,
    check: Callable[[], None],
    encodings: EncodingCache | None = None,
) -> ValidationGrid | None:
    """The grid of a recipe that asks for one. `components` are the base's: they draw what no earlier job has drawn.

    `check` may raise, to stop between two batches of drawing.
    """
    if recipe.validation_every == 0:
        return None

    def drawn(wanted: SamplingRecipe) -> ValidationSet:
        name = "class_images" if wanted.prompts[0] == recipe.class_prompt else "unrelated_prompts"
        boundary = lambda done, total: check()  # noqa: E731
        images = fill_set(stores, wanted, materials.base_folder, components=components, boundary=boundary)
        return encoded(name, images, wanted.prompts)

    def encoded(
        name: str, images: Sequence[Picture], prompts: Sequence[str], sources: Sequence[str] = ()
    ) -> ValidationSet:
        latents = encode_images(family, components, images, recipe.resolution, encodings, sources)
        return ValidationSet(name, latents, tuple(prompts))

    places = photos_of_set(len(materials.photos), len(materials.photos) - materials.learned)
    photos = encoded(
        photo_set_name(recipe.validation_photos),
        [materials.photos[place] for place in places],
        [materials.prompts[place] for place in places],
        [materials.sources[place] for place in places],
    )
    sets = (photos, drawn(class_recipe_of(recipe)), drawn(unrelated_recipe(recipe)))
    return ValidationGrid(family, recipe, sets, encodings)


def class_recipe_of(recipe: TrainingRecipe) -> SamplingRecipe:
    """Class images that no training learns from; a set of their own, so that drawing them changes no other."""
    return _few(recipe, (recipe.class_prompt,) * IMAGES, range(FIRST_SEED, FIRST_SEED + IMAGES))


def unrelated_recipe(recipe: TrainingRecipe) -> SamplingRecipe:
    """What the base draws of prompts that have nothing to do with the subject: the same for every job of the base."""
    return _few(recipe, UNRELATED_PROMPTS, range(len(UNRELATED_PROMPTS)))


def _few(recipe: TrainingRecipe, prompts: tuple[str, ...], seeds: range) -> SamplingRecipe:
    return msgspec.structs.replace(regularization_recipe(recipe), prompts=prompts, seeds=tuple(seeds))
