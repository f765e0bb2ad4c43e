"""Folders of both families, weights in shards, and parts that do not belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from deployments.base_models.base_folders import check_base_folder
from flows.diffusion.families.lookup import family_named
from flows.starter.networks import write_tiny_model
from storage.errors import WeightsRefused
from tests.flows.diffusion.families.shapes import split_weights
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound folder of each family, as save_pretrained leaves it: without a darkroom.json."""
    root = tmp_path_factory.mktemp("base")
    write_tiny_model(root / "sd1", seed=1)
    (root / "sd1" / "darkroom.json").unlink()
    write_tiny_sdxl(root / "sdxl")
    return {"sd1": root / "sd1", "sdxl": root / "sdxl"}


@pytest.fixture
def copies(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's folder for one test to spoil."""
    return lambda family: Path(shutil.copytree(models[family], tmp_path / family))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_folder_without_a_card_is_of_the_family_that_its_pipeline_names(family: str, models: dict[str, Path]):
    checked = check_base_folder(models[family])

    assert (checked.card.family, checked.card.resolution) == (family, 64)
    assert set(family_named(family).layout.weight_files.values()) <= set(checked.files)


def test_a_card_may_leave_the_family_to_the_pipeline(copies: Callable[[str], Path]):
    folder = copies("sdxl")
    (folder / "darkroom.json").write_text('{"resolution": 128, "licence": "mine"}')

    card = check_base_folder(folder).card

    assert (card.family, card.resolution, card.licence) == ("sdxl", 128, "mine")
    # What trains at 128 px also draws at 128 px.
    assert family_named("sdxl").load(folder).resolution == 128


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_weights_in_shards_are_taken_and_load_as_the_whole_ones(
    family: str, models: dict[str, Path], copies: Callable[[str], Path]
):
    folder, known = copies(family), family_named(family)
    for file in known.layout.weight_files.values():
        split_weights(folder / file)

    checked = check_base_folder(folder)
    kept = Path(shutil.copytree(folder, folder.with_name("kept")))
    for path in checked.left_out:
        (kept / path).unlink()

    assert f"{UNET}.index.json" in checked.files
    whole, parts = known.load(models[family]), known.load(kept)
    for name, module in whole.modules.items():
        found = parts.modules[name].state_dict()
        assert all(found[key].equal(tensor) for key, tensor in module.state_dict().items()), name


def _without_a_shard(folder: Path) -> None:
    split_weights(folder / UNET)
    (folder / UNET.replace(".safetensors", "-00002-of-00002.safetensors")).unlink()


def _index_of_pickles(folder: Path) -> None:
    split_weights(folder / UNET)
    index = folder / f"{UNET}.index.json"
    index.write_text(index.read_text().replace(".safetensors", ".bin"))
    for shard in (folder / "unet").glob("*.safetensors"):
        shard.rename(shard.with_suffix(".bin"))


def _index_elsewhere(folder: Path) -> None:
    split_weights(folder / UNET)
    index = folder / f"{UNET}.index.json"
    index.write_text(index.read_text().replace("diffusion_pytorch", "../vae/diffusion_pytorch"))


def _shard_with_more(folder: Path) -> None:
    split_weights(folder / UNET)
    shard = sorted((folder / "unet").glob("*.safetensors"))[0]
    tensors = load_file(shard)
    save_file(tensors | {"conv_in.extra": tensors["conv_in.bias"].clone()}, shard)


def _shard_with_less(folder: Path) -> None:
    split_weights(folder / UNET)
    edit_index(folder, {"conv_in.extra": "diffusion_pytorch_model-00001-of-00002.safetensors"})


def _tensor_in_two_shards(folder: Path) -> None:
    split_weights(folder / UNET)
    first, second = sorted((folder / "unet").glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second)


def edit_index(folder: Path, more: dict[str, str]) -> None:
    index = folder / f"{UNET}.index.json"
    known = json.loads(index.read_text())
    index.write_text(json.dumps({**known, "weight_map": known["weight_map"] | more}))


def _no_index(folder: Path) -> None:
    split_weights(folder / UNET)
    (folder / f"{UNET}.index.json").write_text("[]")


def _second_encoder_missing(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_2")


def _uneven_unet(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    moved = {name.replace("down_blocks.0.resnets.0.", "down_blocks.0.resnets.1."): one for name, one in tensors.items()}
    save_file(tensors | {name: one.clone() for name, one in moved.items()}, folder / UNET)


SPOILED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a missing shard": ("sdxl", _without_a_shard, r"unet/.*-00002-of-00002\.safetensors is missing; the index"),
    "pickled shards": ("sdxl", _index_of_pickles, r"unet/.*names '.*bin', which is no safetensors file beside it"),
    "a shard elsewhere": ("sd1", _index_elsewhere, r"names '\.\./vae/.*', which is no safetensors file beside it"),
    "a shard with more": ("sd1", _shard_with_more, r"disagree on 'conv_in\.extra'"),
    "a shard with less": ("sd1", _shard_with_less, r"00001-of-00002\.safetensors and its index disagree"),
    "a tensor in two shards": ("sdxl", _tensor_in_two_shards, r"00002-of-00002\.safetensors and its index disagree"),
    "no index": ("sd1", _no_index, "is no index of shards"),
    "no second encoder": ("sdxl", _second_encoder_missing, r"text_encoder_2/ is missing"),
    "uneven blocks": ("sdxl", _uneven_unet, "one number for all"),
    "encoders of another model": (
        "sdxl",
        lambda folder: edit(folder / "text_encoder_2" / "config.json", hidden_size=99),
        "attends to vectors of 40 but the text encoder makes 16 and 99",
    ),
    "another pooled vector": (
        "sdxl",
        lambda folder: edit(folder / "text_encoder_2" / "config.json", projection_dim=99),
        "an added vector of 80, not of 6 times 8 for sizes and 99 for words",
    ),
    "a VAE with means": (
        "sdxl",
        lambda folder: edit(folder / "vae" / "config.json", latents_mean=[0.1] * 4),
        "vae/config.json has latents_mean",
    ),
    "a VAE with deviations": (
        "sdxl",
        lambda folder: edit(folder / "vae" / "config.json", latents_std=[0.9] * 4),
        "vae/config.json has latents_std",
    ),
    "a VAE with a shift": (
        "sd1",
        lambda folder: edit(folder / "vae" / "config.json", shift_factor=0.1),
        "vae/config.json has shift_factor",
    ),
    "a pipeline of no family": (
        "sdxl",
        lambda folder: edit(folder / "model_index.json", _class_name="FluxPipeline"),
        r"names FluxPipeline; .*StableDiffusionPipeline \(sd1\), StableDiffusionXLPipeline \(sdxl\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
def test_a_folder_whose_parts_do_not_fit_is_refused_by_name(what: str, copies: Callable[[str], Path]):
    family, spoil, said = SPOILED[what]
    folder = copies(family)
    spoil(folder)

    with pytest.raises(WeightsRefused, match=said):
        check_base_folder(folder)
