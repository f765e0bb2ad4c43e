from __future__ import annotations

from pathlib import Path

import dask.config
import msgspec
import pytest
import torch
from PIL import Image

from flows.diffusion import sampled_sets
from flows.diffusion.families.protocol import Components
from flows.diffusion.sampled_sets import DaskWorkers, DrawnBatch, draw_set, missing_batches, png
from storage.blobs.pictures.written import write_picture
from storage.records.generation.drawings import PictureFormat
from storage.records.jobs.sampled_sets import SamplerSettings, SamplingRecipe
from tests.warm import start_warm

RECIPE = SamplingRecipe(
    base_model_hash="b",
    family="sd1",
    resolution=64,
    prompts=("a photo of a mug",) * 7,
    seeds=tuple(range(7)),
    sampler=SamplerSettings(steps=2, guidance_scale=3.0),
    batch_size=3,
    threads=1,
)


class Written:
    """A place for batches that remembers them, and may fail at one."""

    def __init__(self, fail_at: int = -1) -> None:
        self.images: dict[int, bytes] = {}
        self.starts: list[int] = []
        self._fail_at = fail_at

    def __call__(self, batch: DrawnBatch) -> None:
        first = min(batch.images)
        if first == self._fail_at:
            raise ConnectionError("the store went away")
        self.starts.append(first)
        self.images |= batch.images


@pytest.fixture(scope="module")
def whole(tiny_model: Path) -> Written:
    """The set drawn in one go."""
    written = Written()
    torch.set_num_threads(1)
    assert draw_set(RECIPE, tiny_model, (), written) == 3
    return written


def test_a_batch_that_lacks_an_image_is_drawn_in_its_own_size():
    assert missing_batches(RECIPE, ()) == [range(3), range(3, 6), range(6, 7)]
    assert missing_batches(RECIPE, (0, 1, 2, 3, 5)) == [range(3, 6), range(6, 7)]
    assert missing_batches(RECIPE, (1, 2, 3, 4, 5, 6)) == [range(3)]
    assert missing_batches(RECIPE, range(7)) == []


def test_each_seed_draws_an_image_of_its_own(whole: Written):
    assert sorted(whole.images) == list(range(7))
    assert len(set(whole.images.values())) == 7


def test_a_set_that_was_cut_off_ends_with_the_same_bytes(whole: Written, tiny_model: Path, components: Components):
    cut_off = Written(fail_at=3)
    with pytest.raises(ConnectionError):
        draw_set(RECIPE, tiny_model, (), cut_off, components=components)
    rest = Written()
    assert draw_set(RECIPE, tiny_model, cut_off.images, rest, components=components) == 2
    assert rest.starts == [3, 6]
    assert cut_off.images | rest.images == whole.images


def test_a_set_that_is_extended_gets_only_what_is_new_and_ends_with_the_same_bytes(
    whole: Written, tiny_model: Path, components: Components
):
    smaller = msgspec.structs.replace(RECIPE, prompts=RECIPE.prompts[:4], seeds=RECIPE.seeds[:4])
    begun, rest = Written(), Written()
    assert draw_set(smaller, tiny_model, (), begun, components=components) == 2
    assert draw_set(RECIPE, tiny_model, begun.images, rest, components=components) == 2
    assert sorted(rest.images) == [4, 5, 6]
    assert begun.images | rest.images == whole.images


def test_a_whole_set_loads_no_model(tmp_path: Path):
    assert draw_set(RECIPE, tmp_path / "no such folder", range(7), Written()) == 0


def test_long_work_of_two_workers_gives_the_bytes_of_one(whole: Written, tiny_model: Path):
    spread = Written()
    start_warm()  # else each of the two takes ten seconds of a core to import torch
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        drawn = draw_set(RECIPE, tiny_model, (), spread, workers=DaskWorkers(("", "")), fan_out_seconds=0.0)
    assert drawn == 3
    assert spread.starts[0] == 0  # drawn here, to measure
    assert spread.images == whole.images


def test_workers_are_not_started_beside_a_model_that_the_caller_holds(
    tiny_model: Path, components: Components, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampled_sets, "drawing_client", None)
    drawn = draw_set(
        RECIPE, tiny_model, (), Written(), components=components, workers=DaskWorkers(("", "")), fan_out_seconds=0.0
    )
    assert drawn == 3


def test_a_picture_without_metadata_has_the_bytes_of_the_sets():
    image = Image.linear_gradient("L").convert("RGB")

    assert write_picture(image, PictureFormat.PNG, "", None, {}) == png(image)
