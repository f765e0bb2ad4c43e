"""Who measures a fine-tune: a network trained apart that embeds pictures and names their scenes.

A base model folder may bring its own judge in `judge/`: the starter's, or a CLIP model in transformers layout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from flows.starter.judge import Judge as StarterJudge


class ImageJudge(Protocol):
    """What a judge can measure of images: (N, 3, H, W) in [-1, 1], of the base model's own resolution."""

    @property
    def scenes(self) -> Sequence[str]:
        """The scene phrases it knows, such as "on the beach"."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D): near for pictures of one subject."""
        ...

    def scene_probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (N, scenes), rows sum to 1."""
        ...


class ClipJudge:
    """A judge made of a CLIP model: image embeddings, and scenes by comparing with their phrases.

    Source: Radford et al. 2021, section 3.1 (zero-shot classification); CLIP-I and CLIP-T of Ruiz et al. 2023.
    """

    def __init__(self, folder: Path, scenes: Sequence[str]) -> None:
        self.scenes: Sequence[str] = tuple(scenes)
        self._model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        self._images: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        phrases = [f"a photo of something {scene}" for scene in self.scenes]
        with torch.no_grad():
            tokens = tokenizer(phrases, padding=True, return_tensors="pt")
            self._phrases = _unit(_features(self._model.get_text_features(**tokens)))

    def embed(self, images: Tensor) -> Tensor:
        """CLIP's image embeddings as unit vectors."""
        with torch.no_grad():
            unit_range = (images / 2 + 0.5).clamp(0, 1)
            # They are in [0, 1] already; the processor would divide by 255 once more.
            pixels = self._images(images=list(unit_range), do_rescale=False, return_tensors="pt").pixel_values
            return _unit(_features(self._model.get_image_features(pixel_values=pixels)))

    def scene_probabilities(self, images: Tensor) -> Tensor:
        """Softmax over the scenes' phrases at CLIP's own temperature."""
        scale = self._model.logit_scale.detach().exp()
        return (scale * self.embed(images) @ self._phrases.T).softmax(-1)


def open_judge(model_folder: Path, scenes: Sequence[str]) -> ImageJudge | None:
    """The judge that a base model folder brings, or None. `scenes` is for a judge that has no list of its own."""
    folder = model_folder / "judge"
    if not (folder / "config.json").is_file():
        return None
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") == "clip":
        return ClipJudge(folder, scenes) if scenes else None
    return StarterJudge.load(folder)


def _features(output: Any) -> Tensor:
    # transformers 5 returns an output object where 4 returned the projected features.
    return output if isinstance(output, Tensor) else output.pooler_output


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
