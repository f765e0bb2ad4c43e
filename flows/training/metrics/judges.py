"""Who measures a fine-tune: a network trained apart that embeds pictures and names their scenes.

A base model folder may bring its own judge in `judge/`: the starter's, or a CLIP model in transformers layout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from flows.starter.judge import Judge as StarterJudge
from flows.training.metrics.embedders import Clip


class ImageJudge(Protocol):
    """What a judge can measure of images: (N, 3, H, W) in [-1, 1], of the base model's own resolution."""

    @property
    def scenes(self) -> Sequence[str]:
        """The scene phrases it knows, such as "on the beach"."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D): near for pictures of one subject."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The class words it knows, such as "mug"; none if it tells no classes apart."""
        ...

    def scene_probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (N, scenes); what a row lacks to 1 is of no scene that it knows."""
        ...

    def class_probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes)."""
        ...


class ClipJudge:
    """A judge made of a CLIP model: image embeddings, and scenes by comparing with their phrases.

    Source: Radford et al. 2021, section 3.1 (zero-shot classification).
    """

    classes: Sequence[str] = ()

    def __init__(self, folder: Path, scenes: Sequence[str]) -> None:
        self.scenes: Sequence[str] = tuple(scenes)
        self._clip = Clip(folder)
        # The last one is of no scene: without it every picture would show one of those that are listed.
        phrases = [*(f"a photo of something {scene}" for scene in self.scenes), "a photo of something"]
        self._phrases = self._clip.embed_texts(phrases)

    def embed(self, images: Tensor) -> Tensor:
        """CLIP's image embeddings as unit vectors."""
        return self._clip.embed(images)

    def class_probabilities(self, images: Tensor) -> Tensor:
        """(N, 0): it knows no classes."""
        return torch.zeros(images.shape[0], 0)

    def scene_probabilities(self, images: Tensor) -> Tensor:
        """Softmax over the scenes' phrases and one without a scene, at CLIP's own temperature."""
        return (self._clip.logit_scale * self.embed(images) @ self._phrases.T).softmax(-1)[:, :-1]


def open_judge(model_folder: Path, scenes: Sequence[str]) -> ImageJudge | None:
    """The judge that a base model folder brings, or None. `scenes` is for a judge that has no list of its own."""
    folder = model_folder / "judge"
    if not (folder / "config.json").is_file():
        return None
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") == "clip":
        return ClipJudge(folder, scenes) if scenes else None
    return StarterJudge.load(folder)
