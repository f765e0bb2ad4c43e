"""Shapes for photos of different aspect ratios: of about equal area, so that every micro-batch costs about the same.

Source: the buckets of NovelAI 2022, "NovelAI Improvements on Stable Diffusion", as kohya's scripts count them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from storage.records.jobs.training import TrainingRecipe
from storage.records.jobs.training_samples import shape_sides, shape_step

Shape = tuple[int, int]
"""Width and height in pixels."""


def shapes_of(recipe: TrainingRecipe) -> tuple[Shape, ...]:
    """The shapes that the recipe's photos are sorted into, narrowest first; without `bucketing` the square alone.

    Sides are multiples of the step, between the limits; no shape has more pixels than the square.
    """
    square = (recipe.resolution, recipe.resolution)
    if not recipe.bucketing:
        return (square,)
    step = shape_step(recipe.bucket_step, recipe.resolution)
    low, high = shape_sides(recipe.bucket_min_side, recipe.bucket_max_side, recipe.resolution)
    side = recipe.resolution // step * step
    found: set[Shape] = {(side, side)}
    for long in range(math.ceil(low / step) * step, high + 1, step):
        short = min(recipe.resolution**2 // long, high) // step * step
        if short >= low:
            found |= {(long, short), (short, long)}
    return tuple(sorted(found, key=_ratio))


def nearest_shape(size: Shape, shapes: Sequence[Shape]) -> Shape:
    """The shape that cuts least off a photo of `size`; of equal ones the largest."""
    return min(shapes, key=lambda shape: (abs(math.log(_ratio(shape) / _ratio(size))), -shape[0] * shape[1]))


def sorted_into_shapes(sizes: Sequence[Shape], recipe: TrainingRecipe) -> dict[Shape, list[int]]:
    """The photos of each shape that has any, by their place in `sizes`; shapes in the order of their first photo."""
    shapes, found = shapes_of(recipe), dict[Shape, list[int]]()
    for place, size in enumerate(sizes):
        found.setdefault(nearest_shape(size, shapes), []).append(place)
    return found


def partners(photos: Sequence[int], photo_count: int, class_count: int) -> list[int]:
    """The class images that train beside these photos: image k beside photo k modulo the number of photos.

    So each shape has class images in proportion to its photos, and at least one.
    """
    own = set(photos)
    beside = [place % class_count for place in range(max(photo_count, class_count)) if place % photo_count in own]
    return sorted(set(beside))


def _ratio(shape: Shape) -> float:
    return shape[0] / shape[1]
