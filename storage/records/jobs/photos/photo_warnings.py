"""What is allowed and yet rarely meant in a data set, in words for whoever trains on it."""

from __future__ import annotations

from collections.abc import Sequence

from storage.records.jobs.data_sets import DataSetImage, learned_images
from storage.records.jobs.training import TrainingRecipe
from storage.records.jobs.training_samples import names_subject

MAXIMUM = 10
"""Warnings of one sort; the others are counted."""


def photo_warnings(images: Sequence[DataSetImage], recipe: TrainingRecipe) -> tuple[str, ...]:
    """An identifier that nothing is learned of, photos that are there twice (equal pixels), and photos that training
    has to enlarge."""
    return (*_unnamed(images, recipe), *_at_most(_copies(images)), *_at_most(_small(images, recipe)))


def _unnamed(images: Sequence[DataSetImage], recipe: TrainingRecipe) -> list[str]:
    learned = learned_images(images, recipe.validation_photos)
    # Before all but whole prompts the subject's sentence stands, if they do not name it themselves.
    if any(not (one.whole_prompt and one.caption) or names_subject(one.caption, recipe.identifier) for one in learned):
        return []
    return [
        f"the identifier '{recipe.identifier}' is in no photo's prompt, so nothing is learned of it, and samples and "
        "evaluation show what the base makes of it. Set identifier to the word that the photos' captions have."
    ]


def _copies(images: Sequence[DataSetImage]) -> list[str]:
    first: dict[str, DataSetImage] = {}
    # The hash is of the canonical PNG, so it is equal where the pixels are.
    pairs = [(image, first.setdefault(image.sha256, image)) for image in images]
    return [
        f"'{image.name}' is the same picture as '{earlier.name}', which counts once more for it. Leave one out."
        for image, earlier in pairs
        if image is not earlier
    ]


def _small(images: Sequence[DataSetImage], recipe: TrainingRecipe) -> list[str]:
    side = recipe.resolution
    small = [
        image
        for image in images
        # With buckets a photo keeps its shape: what counts is its area.
        if (image.width * image.height < side * side if recipe.bucketing else min(image.width, image.height) < side)
    ]
    return [
        f"'{image.name}' has {image.width} x {image.height} pixels and is enlarged to the base's {side}: its blur is "
        "learned too. Send it larger, or leave it out."
        for image in small
    ]


def _at_most(warnings: list[str]) -> list[str]:
    left = len(warnings) - MAXIMUM
    return warnings[:MAXIMUM] + ([f"... and {left} more photos like these."] if left > 0 else [])
