"""Networks that compare pictures with pictures and texts: CLIP and DINO, from folders on this machine.

What papers on personalised models report is measured with them: CLIP-I and CLIP-T with CLIP (Radford et al. 2021), DINO
with a vision transformer that was trained without labels (Caron et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from flows.training.metrics.comparisons import unit
from storage.errors import JobCannotSucceed

CLIP, DINO = "clip", "dino"


class Clip:
    """A CLIP model in transformers layout."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        self._processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied with before a softmax over texts."""
        return self._model.logit_scale.detach().exp()

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to unit vectors (N, D)."""
        pixels = _processed(self._processor, images)
        return unit(_features(self._model.get_image_features(pixel_values=pixels)))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors (N, D); what is longer than the encoder takes is cut."""
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return unit(_features(self._model.get_text_features(**tokens)))


class Dino:
    """A DINO or DINOv2 vision transformer in transformers layout; its embedding is that of the class token."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        self._processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to unit vectors (N, D)."""
        return unit(self._model(pixel_values=_processed(self._processor, images)).last_hidden_state[:, 0])


@dataclass(frozen=True)
class Embedders:
    """Those that there are on this machine."""

    clip: Clip | None = None
    dino: Dino | None = None


def open_embedders(folder: Path | None) -> Embedders:
    """What `clip/` and `dino/` inside a folder hold; without a folder none. Raises as `check_embedders`."""
    found = check_embedders(folder)
    return Embedders(
        Clip(found[CLIP]) if CLIP in found else None,
        Dino(found[DINO]) if DINO in found else None,
    )


def check_embedders(folder: Path | None) -> dict[str, Path]:
    """The folder of each embedder that there is, by its name; nothing is loaded.

    Raises JobCannotSucceed when the folder has none, which is then no folder of theirs.
    """
    if folder is None:
        return {}
    found = {name: folder / name for name in (CLIP, DINO) if (folder / name / "config.json").is_file()}
    if not found:
        raise JobCannotSucceed(
            f"DARKROOM_JOBS__EMBEDDERS_FOLDER holds neither {CLIP}/config.json nor {DINO}/config.json. An operator "
            f"puts a CLIP model into {CLIP}/ or a DINO model into {DINO}/, in transformers layout with safetensors, or "
            "unsets it; then retry the job."
        )
    return found


def _processed(processor: Any, images: Tensor) -> Tensor:
    in_unit_range = (images / 2 + 0.5).clamp(0, 1)
    # They are in [0, 1] already; the processor would divide by 255 once more.
    return processor(images=list(in_unit_range), do_rescale=False, return_tensors="pt").pixel_values


def _features(output: Any) -> Tensor:
    # transformers 5 returns an output object where 4 returned the projected features.
    return output if isinstance(output, Tensor) else output.pooler_output
