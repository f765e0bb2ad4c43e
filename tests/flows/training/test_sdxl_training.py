"""A fine-tune of a tiny SDXL: trained, killed, resumed, measured, exported, opened elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

from flows.diffusion.families.lookup import family_named
from flows.training.callbacks import Watch
from flows.training.evaluation import noise_drift
from flows.training.exports.export import Export
from flows.training.photos.latents import encode_images
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.tiny import KeptCheckpoints, pictures, recipe, train_and_export

SDXL = family_named("sdxl")
WANTED = recipe(family="sdxl", steps=4, text_encoder_learning_rate=1e-4, checkpoint_every=1)


class Killed(Exception):
    """The process is gone."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL; tests only read it."""
    folder = tmp_path_factory.mktemp("sdxl") / "base"
    write_tiny_sdxl(folder)
    return folder


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """What an uninterrupted training of it exports."""
    work = tmp_path_factory.mktemp("whole")
    return train_and_export(base, work, WANTED, KeptCheckpoints(work / "kept"))


def test_a_killed_training_goes_on_to_the_same_bytes(base: Path, whole: Export, tmp_path: Path):
    kept = KeptCheckpoints(tmp_path / "kept")

    def die(step: int) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train_and_export(base, tmp_path / "first", WANTED, kept, Watch(check=die))
    again = train_and_export(base, tmp_path / "second", WANTED, kept)

    assert kept.kept == [1, 2, 3, 4]
    assert again.hashes == whole.hashes
    for name in whole.members():
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_unet_and_both_encoders_have_learned_and_the_drift_is_measured(base: Path, whole: Export):
    before, after = SDXL.load(base), SDXL.load(whole.folder)
    for name in ("unet", "text_encoder", "text_encoder_2"):
        old = before.modules[name].state_dict()
        assert any(not torch.equal(old[key], new) for key, new in after.modules[name].state_dict().items())
    tokens = {name: SDXL.identifier_tokens(before, "sks", name) for name in before.text_encoders}
    tables = [{name: SDXL.token_embedding(parts, name).weight for name in tokens} for parts in (before, after)]
    for name, rows in tokens.items():
        assert not torch.equal(tables[0][name][rows], tables[1][name][rows])

    drift = noise_drift(SDXL, before, after, encode_images(SDXL, before, pictures(4), 64), "a photo of a mug")
    assert 0 < drift < float("inf")


def test_the_single_file_opens_as_the_folder_does(whole: Export):
    one = StableDiffusionXLPipeline.from_single_file(
        str(whole.single_file), config=str(whole.folder), local_files_only=True
    )
    folder = StableDiffusionXLPipeline.from_pretrained(whole.folder)

    for name in SDXL.layout.weight_files:
        ours, theirs = (getattr(pipeline, name).state_dict() for pipeline in (one, folder))
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
