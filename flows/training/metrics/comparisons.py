"""Comparing pictures by their embeddings: likeness, variety, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.training.photos.pictures import Pixels
from flows.training.photos.random_numbers import generator_for

UNRELATED_PROMPTS = ("a street in a city", "a forest in autumn", "a portrait of a person")
"""Nothing that a subject is a thing of; what a fine-tune changes there it was not asked to change."""

RESAMPLES = 2000
"""Of a bootstrap: enough that the ends of an interval move by less than a hundredth of its width."""


@dataclass(frozen=True)
class EvaluationImages:
    """What one model drew: pictures of the subject in scenes (scene by scene, each with every seed), and of the class.

    Both are (N, 3, H, W) in [-1, 1].
    """

    subject: Pixels
    of_class: Pixels


def mean_cosine(images: Tensor, reference: Tensor) -> float:
    """Mean cosine over all pairs of rows: (N, D) and (M, D)."""
    return float(cosines(images, reference).mean())


def mean_cosine_within(reference: Tensor) -> float | None:
    """Mean cosine over all pairs of different rows of (M, D); None for a single row."""
    count = reference.shape[0]
    if count < 2:
        return None
    found = cosines(reference, reference)
    return float((found.sum() - found.diagonal().sum()) / (count * (count - 1)))


def cosines(images: Tensor, reference: Tensor) -> Tensor:
    """The cosine of every row of (N, D) with every row of (M, D): (N, M)."""
    return unit(images) @ unit(reference).T


def diversity(images: Tensor, prompts: Sequence[str]) -> float:
    """Mean distance (1 - cosine) of two pictures (N, D) of one prompt, over the prompts. A collapsed model has 0."""
    distances = diversities(images, prompts).tolist()
    return sum(distances) / len(distances) if distances else 0.0


def diversities(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean distance of two pictures (N, D) of one prompt, for each prompt that has two."""
    distances: list[float] = []
    for prompt in dict.fromkeys(prompts):
        rows = [place for place, other in enumerate(prompts) if other == prompt]
        within = mean_cosine_within(images[rows])
        if within is not None:
            distances.append(1.0 - within)
    return torch.tensor(distances, dtype=torch.float64)


def interval(values: Tensor) -> tuple[float, float]:
    """Where the mean of values (N,) lies with 95 %: the percentile bootstrap (Efron 1979), with a fixed seed.

    It says how far the mean would move with other seeds; that of another set of photos it does not know.
    """
    count = values.shape[0]
    rows = torch.randint(0, count, (RESAMPLES, count), generator=generator_for(0, "bootstrap", 0))
    means = values.double().cpu()[rows].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def unit(vectors: Tensor) -> Tensor:
    """Vectors (N, D), each of length 1, in float32."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
