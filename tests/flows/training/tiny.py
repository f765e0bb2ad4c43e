"""A tiny model, its recipe and its images: everything a training test starts from."""

from __future__ import annotations

import copy
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from PIL import Image

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.exports.export import Export, export_model
from flows.training.fit import fit
from flows.training.photos.latents import TrainingImages, encode_images
from flows.training.photos.random_numbers import generator_for
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingRecipe

FAMILY = family_named("sd1")
TINY_RECIPE = TrainingRecipe(
    data_set_hash="d" * 64,
    base_model_hash="b" * 64,
    family="sd1",
    resolution=64,
    class_word="mug",
    identifier="sks",
    steps=20,
    batch_size=1,
    learning_rate=1e-3,
    text_encoder_learning_rate=0.0,
    token_learning_rate=1e-2,
    prior_loss_weight=1.0,
    regularization_count=3,
    checkpoint_every=1,
    sample_every=1000,
    seed=7,
    sampler=SamplerSettings(steps=2, guidance_scale=3.0),
    evaluation_scenes=("on the beach", "in the snow"),
    threads=1,
)


_LOADED: dict[tuple[Path, str, str], Components] = {}
"""What was read of each base in this process. A copy of a tiny model takes a quarter of the time to read it."""


def loaded(base: Path, dtype: str = "float32", family: str = "sd1") -> Components:
    """The parts of a base that stays as it is, as the family loads them; a test may train them."""
    key = (base, dtype, family)
    if key not in _LOADED:
        _LOADED[key] = family_named(family).load(base, dtype=dtype)
    return copy.deepcopy(_LOADED[key])


def recipe(**changes: Any) -> TrainingRecipe:
    """The tiny recipe with changes."""
    return msgspec.structs.replace(TINY_RECIPE, **changes)


def pictures(count: int, purpose: str = "pictures") -> list[Image.Image]:
    """`count` different RGB images of 64 x 64 pixels."""
    drawn: list[Image.Image] = []
    for number in range(count):
        pixels = torch.randint(0, 256, (8, 8, 3), generator=generator_for(0, purpose, number), dtype=torch.uint8)
        drawn.append(Image.fromarray(pixels.numpy()).resize((64, 64), Image.Resampling.BICUBIC))
    return drawn


def training_images(components: Components, wanted: TrainingRecipe) -> TrainingImages:
    """Two photos, and the recipe's number of regularization images unless it trains without them."""
    family, prior = family_named(wanted.family), None
    if wanted.prior_loss_weight > 0:
        prior = encode_images(family, components, pictures(wanted.regularization_count, "class"), wanted.resolution)
    return TrainingImages(encode_images(family, components, pictures(2), wanted.resolution), prior)


@dataclass
class KeptCheckpoints:
    """Checkpoints in a folder, one file a step; remembers which steps were kept in this process."""

    folder: Path
    kept: list[int] = field(default_factory=list)
    owner: str = "a job"

    def latest(self) -> tuple[int, Path] | None:
        """The file of the highest step."""
        steps = sorted(int(file.stem) for file in self.folder.glob("*.safetensors"))
        return (steps[-1], self.folder / f"{steps[-1]}.safetensors") if steps else None

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Copy whole, then rename."""
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{step}.partial"
        shutil.copyfile(file, partial)
        partial.rename(self.folder / f"{step}.safetensors")
        self.kept.append(step)


def fit_tiny(
    components: Components, wanted: TrainingRecipe, folder: Path, watch: Watch | None = None
) -> frozenset[str]:
    """A fit of parts that are loaded, from the first step; its checkpoints are under `folder`. Returns what changed."""
    return fit(
        wanted,
        FAMILY,
        components,
        training_images(components, wanted),
        recipe_hash=wanted.fingerprint(),
        newest=None,
        checkpoints=KeptCheckpoints(folder / "kept"),
        work_folder=folder,
        watch=watch,
    )


def train_and_export(
    base: Path,
    work: Path,
    wanted: TrainingRecipe,
    checkpoints: KeptCheckpoints,
    watch: Watch | None = None,
    *,
    recipe_hash: str = "",
) -> Export:
    """The whole of a training, from a base model folder to an export under `work`."""
    components, changed = train(base, work, wanted, checkpoints, watch, recipe_hash=recipe_hash)
    return export_model(
        family_named(wanted.family), components, changed, wanted, recipe_hash or wanted.fingerprint(), work / "export"
    )


def train(
    base: Path,
    work: Path,
    wanted: TrainingRecipe,
    checkpoints: KeptCheckpoints,
    watch: Watch | None = None,
    *,
    recipe_hash: str = "",
) -> tuple[Components, frozenset[str]]:
    """A training of the recipe on a base model folder: the trained components, and which of them changed."""
    torch.set_num_threads(wanted.threads)
    work.mkdir(parents=True, exist_ok=True)
    family = family_named(wanted.family)
    components = loaded(base, wanted.held_in, wanted.family)
    images = training_images(components, wanted)
    newest = checkpoints.latest()
    changed = fit(
        wanted,
        family,
        components,
        images,
        recipe_hash=recipe_hash or wanted.fingerprint(),
        newest=newest[1] if newest else None,
        checkpoints=checkpoints,
        work_folder=work,
        watch=watch,
    )
    return components, changed
