"""A fine-tune of a tiny SDXL: trained, killed, resumed, measured, exported, opened elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from PIL import Image
from torch import nn

from flows.diffusion.families.lookup import family_named
from flows.training.callbacks import Watch
from flows.training.evaluation import noise_drift
from flows.training.exports.export import Export
from flows.training.methods.lookup import method_named
from flows.training.module import DreamBoothModule
from flows.training.photos.latents import encode_for, encode_images
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


class SeenByUnet:
    """What a UNet was given, one entry a call."""

    def __init__(self, unet: nn.Module) -> None:
        self.calls: list[dict[str, torch.Tensor]] = []
        unet.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, unet: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.calls.append({"states": named["encoder_hidden_states"].detach(), **named["added_cond_kwargs"]})


def test_a_step_tells_the_model_how_each_image_was_cropped_and_its_own_caption(base: Path) -> None:
    views: dict[str, Any] = {"random_crop": True, "cached_crops": 2, "random_flip": True}
    wanted = recipe(family="sdxl", token_learning_rate=0.0, regularization_count=2, **views)
    components = SDXL.load(base)
    wide = [Image.new("RGB", (96 + 32 * place, 64), "red") for place in range(2)]
    captions, classes = ["a red mug", "a mug in the snow"], [Image.new("RGB", (64, high)) for high in (64, 96)]
    images = encode_for(wanted, SDXL, components, wide, classes, prompts=captions)
    prior = images.regularization
    assert prior is not None
    module = DreamBoothModule(wanted, SDXL, components, method_named("full").begin(SDXL, components, wanted), images)
    seen, rows = SeenByUnet(components.unet), set[int]()
    with torch.no_grad():
        encoded = SDXL.encode_prompts(components, [*captions, wanted.class_prompt]).tensors["encoder_hidden_states"]
        for number in range(6):
            draw = module.draw(number)
            module.loss_of(draw)
            row, partner = int(draw.instance_rows[0]), int(draw.regularization_rows[0])
            rows.add(row)
            sizes = [images.instance.sizes[row], prior.sizes[partner]]
            expected = [[*one.original, *one.crop, *one.target] for one in sizes]
            assert seen.calls[number]["time_ids"].tolist() == expected
            assert torch.allclose(seen.calls[number]["states"], encoded[[row // 4, 2]], atol=1e-5)
    assert len(rows) > 3, "views of both photos"
    assert {one.original for one in images.instance.sizes} == {(64, 96), (64, 128)}
    assert {one.original for one in prior.sizes} == {(64, 64), (96, 64)}
    assert len(images.instance.sizes) == len(images.instance.mean) == 2 * 2 * 2
    assert len({one.crop for one in images.instance.sizes}) > 4


@pytest.mark.parametrize("rate", [0.0, 1e-4], ids=["frozen text", "trained text"])
def test_a_dropped_caption_is_what_guidance_draws_away_from(rate: float, base: Path) -> None:
    wanted = recipe(family="sdxl", text_encoder_learning_rate=rate, token_learning_rate=0.0, caption_dropout=0.5)
    components = SDXL.load(base)
    images = encode_for(wanted, SDXL, components, pictures(2), pictures(2, "class"))
    training = method_named("full").begin(SDXL, components, wanted)
    module, seen = DreamBoothModule(wanted, SDXL, components, training, images), SeenByUnet(components.unet)
    with torch.no_grad():
        for dropped in ((True, False), (False, True)):
            module.loss_of(replace(module.draw(0), dropped=dropped))
            for name in ("states", "text_embeds"):
                # This model was published with zeros for no words.
                assert [not row.any() for row in seen.calls[-1][name]] == list(dropped), name


def test_both_encoders_get_adapters_of_their_own(base: Path) -> None:
    asked: dict[str, Any] = {"method": "lora", "token_learning_rate": 0.0, "lora_rank": 2, "lora_alpha": 2.0}
    wanted = recipe(family="sdxl", text_encoder_learning_rate=5e-5, **asked)

    training = method_named("lora").begin(SDXL, SDXL.load(base), wanted)

    assert {group.name: group.learning_rate for group in training.groups} == {
        "unet": 1e-3,
        "text_encoder": 5e-5,
        "text_encoder_2": 5e-5,
    }
