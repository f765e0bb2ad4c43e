"""Which images a training's loss is measured on: photos that are kept out where some are, and drawn ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.metrics import validation_images
from flows.training.metrics.comparisons import UNRELATED_PROMPTS
from flows.training.metrics.validation_images import FIRST_SEED, validation_grid
from flows.training.photos.latents import encode_images
from flows.training.photos.materials import Materials
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.sampled_sets import SamplingRecipe
from storage.records.jobs.training import TrainingRecipe
from storage.stores import Stores
from tests.flows.training.tiny import FAMILY, pictures, recipe


def materials_of(folder: Path, wanted: TrainingRecipe) -> Materials:
    """Six photos, each with a caption; the last one by hash is there twice."""
    contents: dict[str, bytes] = {}
    for number, image in enumerate(pictures(5)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        contents[f"{number}" * 64] = buffer.getvalue()
    rows = [
        DataSetImage(position=n, name=f"{n}.png", sha256=sha256, size=1, width=64, height=64, caption=f"sks {n}")
        for n, sha256 in enumerate([*contents, "4" * 64])
    ]
    return Materials(folder, rows, wanted, contents.__getitem__)


@pytest.mark.parametrize(
    ("held_out", "shown", "captions"),
    [(0, [0, 1, 2, 3], "0123"), (1, [4, 4], "45"), (2, [3, 4, 4], "345")],
)
def test_photos_are_those_kept_out_with_their_own_captions(
    held_out: int,
    shown: list[int],
    captions: str,
    components: Components,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[SamplingRecipe] = []

    def drawn(stores: Stores, wanted: SamplingRecipe, folder: Path, **options: Any) -> list[Any]:
        asked.append(wanted)
        return pictures(len(wanted.prompts), "drawn")

    monkeypatch.setattr(validation_images, "fill_set", drawn)
    wanted = recipe(validation_every=3, validation_photos=held_out)
    materials = materials_of(tmp_path, wanted)
    stores = cast(Stores, None)  # only drawing reads them

    grid = validation_grid(stores, wanted, FAMILY, components, materials, lambda: None)

    assert grid is not None
    photos, of_class, unrelated = grid.sets
    assert photos.name == ("held_out_photos" if held_out else "training_photos")
    assert photos.prompts == tuple(f"sks {caption}" for caption in captions)
    ours = encode_images(FAMILY, components, [pictures(5)[place] for place in shown], 64)
    assert torch.equal(photos.latents.mean, ours.mean)
    assert (of_class.name, of_class.prompts) == ("class_images", ("a photo of a mug",) * 4)
    assert (unrelated.name, unrelated.prompts) == ("unrelated_prompts", UNRELATED_PROMPTS)
    assert [one.seeds for one in asked] == [tuple(range(FIRST_SEED, FIRST_SEED + 4)), (0, 1, 2)]


def test_a_training_that_is_not_measured_has_no_grid(components: Components, tmp_path: Path) -> None:
    wanted = recipe()
    materials = materials_of(tmp_path, wanted)
    assert validation_grid(cast(Stores, None), wanted, FAMILY, components, materials, lambda: None) is None
