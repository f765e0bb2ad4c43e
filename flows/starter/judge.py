"""Judging images of the small world: what they show, and whether two show the same subject.

Two networks that share nothing: a classifier of class, colour, pattern and scene, and an embedder whose unit vectors
lie close for one subject in different scenes and apart for two subjects of one class and colour.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from flows.starter.world import CLASSES, COLOURS, IMAGE_SIZE, PATTERNS, SCENES

CONFIG_FILE = "config.json"
CLASSIFIER_FILE = "classifier.safetensors"
EMBEDDER_FILE = "embedder.safetensors"


Images = Tensor | Sequence[Image.Image]


class JudgeFilesMissing(FileNotFoundError):
    """The folder is not a judge's: a file that `Judge.save` writes is absent."""


@dataclass(frozen=True)
class JudgeSizes:
    """Channels of the four stages of each network, and the length of the embedder's vectors."""

    classifier: tuple[int, int, int, int] = (24, 48, 64, 96)
    embedder: tuple[int, int, int, int] = (24, 48, 80, 128)
    dimensions: int = 64


TINY_JUDGE = JudgeSizes((4, 4, 4, 8), (4, 4, 4, 8), 8)


def _stage(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1),
        nn.GroupNorm(4, outer),
        nn.SiLU(),
        nn.Conv2d(outer, outer, 3, padding=1),
        nn.GroupNorm(4, outer),
        nn.SiLU(),
    )


def _trunk(channels: tuple[int, int, int, int]) -> nn.Sequential:
    """(N, 3, 64, 64) to (N, channels[-1], 8, 8)."""
    first, second, third, fourth = channels
    return nn.Sequential(
        nn.Conv2d(3, first, 3, stride=2, padding=1),
        nn.SiLU(),
        _stage(first, second, 2),
        _stage(second, third, 2),
        _stage(third, fourth, 1),
    )


def _pooled(features: Tensor) -> Tensor:
    return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class Classifier(nn.Module):
    """Logits of the class, colour, pattern and scene of an image with one thing."""

    def __init__(self, sizes: JudgeSizes) -> None:
        super().__init__()
        self.trunk = _trunk(sizes.classifier)
        self.lengths = (len(CLASSES), len(COLOURS), len(PATTERNS), len(SCENES))
        self.head = nn.Linear(sizes.classifier[-1] * 2, sum(self.lengths))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: (N, 3, 64, 64) in [-1, 1]. Returns (N, classes), (N, colours), (N, patterns), (N, scenes)."""
        return self.head(_pooled(self.trunk(images))).split(self.lengths, dim=1)


class Embedder(nn.Module):
    """Images to unit vectors that name the subject and forget the scene and the pose."""

    def __init__(self, sizes: JudgeSizes) -> None:
        super().__init__()
        self.trunk = _trunk(sizes.embedder)
        # Where the subject is, learned: the scene is most of the image and must not vote.
        self.attention = nn.Conv2d(sizes.embedder[-1], 4, 1)
        self.head = nn.Sequential(nn.Linear(sizes.embedder[-1] * 4, 128), nn.SiLU(), nn.Linear(128, sizes.dimensions))

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, 3, 64, 64) in [-1, 1]. Returns (N, D) unit vectors."""
        features = self.trunk(images)
        weights = self.attention(features).flatten(2).softmax(dim=-1)
        # 4 maps of where to look, each with all channels of what is there.
        seen = torch.einsum("nkp,ncp->nkc", weights, features.flatten(2)).flatten(1)
        return normalize(self.head(seen), dim=1)


def as_batch(images: Images) -> Tensor:
    """Images as (N, 3, 64, 64) float32 in [-1, 1]; pictures are made RGB and brought to 64 px."""
    if isinstance(images, Tensor):
        return images.float()
    sized = [image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS) for image in images]
    arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in sized]
    return torch.stack(arrays) / 127.5 - 1.0


class Judge:
    """The two networks, frozen, behind questions about images.

    Images are a batch (N, 3, 64, 64) in [-1, 1], or pictures of any size, which are brought to 64 px."""

    scenes: tuple[str, ...] = SCENES
    classes: tuple[str, ...] = CLASSES

    def __init__(self, classifier: Classifier, embedder: Embedder, sizes: JudgeSizes) -> None:
        self.classifier = classifier.eval().requires_grad_(False)
        self.embedder = embedder.eval().requires_grad_(False)
        self.sizes = sizes

    @classmethod
    def fresh(cls, sizes: JudgeSizes, seed: int) -> Self:
        """A judge with random weights from a seed, for training or for tests that ask no quality."""
        # Modules draw their first weights from the global generator. It is put back, so that making a judge moves no
        # other draw.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(Classifier(sizes), Embedder(sizes), sizes)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a judge's folder. Raises JudgeFilesMissing if it is not one."""
        for name in (CONFIG_FILE, CLASSIFIER_FILE, EMBEDDER_FILE):
            if not (Path(folder) / name).is_file():
                raise JudgeFilesMissing(f"{Path(folder) / name} is missing; run the pretrain-starter flow to make it.")
        kept = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
        sizes = JudgeSizes(tuple(kept["classifier"]), tuple(kept["embedder"]), kept["dimensions"])
        judge = cls.fresh(sizes, seed=0)
        judge.classifier.load_state_dict(_read(Path(folder) / CLASSIFIER_FILE))
        judge.embedder.load_state_dict(_read(Path(folder) / EMBEDDER_FILE))
        return judge

    def save(self, folder: Path) -> None:
        """Write both networks as fp16 safetensors with their sizes and the words of their classes."""
        folder.mkdir(parents=True, exist_ok=True)
        words = {"classes": CLASSES, "colours": list(COLOURS), "patterns": list(PATTERNS), "scenes": SCENES}
        text = json.dumps(asdict(self.sizes) | words, indent=2)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        for name, network in ((CLASSIFIER_FILE, self.classifier), (EMBEDDER_FILE, self.embedder)):
            # Half the size: the judge is part of the repository. It works in float32, which `_read` restores.
            state = {key: value.half().contiguous() for key, value in sorted(network.state_dict().items())}
            save_file(state, str(folder / name), metadata={"format": "pt"})

    @torch.no_grad()
    def embed(self, images: Images) -> Tensor:
        """(N, D) unit vectors."""
        return self.embedder(as_batch(images))

    @torch.no_grad()
    def class_probabilities(self, images: Images) -> Tensor:
        """(N, classes), in the order of `classes`."""
        return self.classifier(as_batch(images))[0].softmax(dim=1)

    @torch.no_grad()
    def colour_probabilities(self, images: Images) -> Tensor:
        """(N, colours), in the order of `world.COLOURS`."""
        return self.classifier(as_batch(images))[1].softmax(dim=1)

    @torch.no_grad()
    def pattern_probabilities(self, images: Images) -> Tensor:
        """(N, patterns), in the order of `world.PATTERNS`."""
        return self.classifier(as_batch(images))[2].softmax(dim=1)

    @torch.no_grad()
    def scene_probabilities(self, images: Images) -> Tensor:
        """(N, scenes), in the order of `scenes`."""
        return self.classifier(as_batch(images))[3].softmax(dim=1)


def _read(path: Path) -> dict[str, Tensor]:
    return {key: value.float() for key, value in load_file(str(path)).items()}
