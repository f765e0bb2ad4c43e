"""A base model in one file becomes the folder that it was made of; what is no base model is refused by what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import SecretStr
from safetensors.torch import load_file, save_file

from deployments.base_models import single_files
from deployments.base_models.base_folders import check_base_folder
from deployments.base_models.registration import add_base_model
from deployments.base_models.single_files import convert_single_file, family_of
from flows.diffusion.families.lookup import family_named
from flows.starter.networks import write_tiny_model
from flows.training.exports.single_files import read_schedule, write_single_file
from storage.errors import WeightsRefused
from storage.settings import BlobSettings, PostgresSettings, Settings
from storage.stores import Stores, open_stores
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.tiny import recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family, with its single file beside it."""
    root = tmp_path_factory.mktemp("bases")
    write_tiny_model(root / "sd1", seed=1)
    write_tiny_sdxl(root / "sdxl", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    for family in ("sd1", "sdxl"):
        wanted = recipe(family=family)
        write_single_file(family_named(family), root / family, wanted, "5" * 64, root / f"{family}.safetensors")
    return {family: root / family for family in ("sd1", "sdxl")}


@pytest.fixture
def stores(module_database_url: str, tmp_path: Path) -> Iterator[Stores]:
    """Stores of one test: the module's database, blobs of its own."""
    settings = Settings(
        data_folder=tmp_path / "data",
        postgres=PostgresSettings(url=SecretStr(module_database_url)),
        blobs=BlobSettings(url=(tmp_path / "blobs").as_uri()),
    )
    with open_stores(settings) as opened:
        yield opened


def single_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.safetensors")


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_single_file_becomes_a_folder_of_the_same_weights(family: str, folders: dict[str, Path], tmp_path: Path):
    source, known = folders[family], family_named(family)

    made = convert_single_file(single_file(source), source, tmp_path / "made")

    assert check_base_folder(made).card.family == family
    ours, theirs = known.load(made), known.load(source)
    for name, module in theirs.modules.items():
        found = ours.modules[name].state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in module.state_dict().items()), name
    assert read_schedule(made)["prediction_type"] == read_schedule(source)["prediction_type"]
    stored = {folder: dtypes(folder / known.layout.weight_files["unet"]) for folder in (made, source)}
    assert stored[made] == stored[source] == {torch.float16 if family == "sd1" else torch.float32}


def dtypes(file: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(file).values()}


def test_what_a_file_says_of_its_prediction_wins_over_the_configs(folders: dict[str, Path], tmp_path: Path):
    write_tiny_sdxl(tmp_path / "noise")

    made = convert_single_file(single_file(folders["sdxl"]), tmp_path / "noise", tmp_path / "made")

    schedule = read_schedule(made)
    assert (schedule["prediction_type"], schedule["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_a_single_file_is_registered_and_the_same_file_again_is_the_same_base(folders: dict[str, Path], stores: Stores):
    source = folders["sdxl"]
    first = add_base_model(stores, single_file(source), "one-file", config=source)

    again = add_base_model(stores, single_file(source), "one-file", config=source)

    assert (again, first.facts.family, first.facts.resolution) == (first, "sdxl", 64)
    assert list((stores.settings.data_folder / "tmp").iterdir()) == []


def test_configs_of_another_shape_are_refused(folders: dict[str, Path], tmp_path: Path):
    other = Path(shutil.copytree(folders["sd1"], tmp_path / "other"))
    config = other / "unet" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))

    with pytest.raises(WeightsRefused, match="--config"):
        convert_single_file(single_file(folders["sd1"]), other, tmp_path / "made")


@pytest.mark.parametrize("layers", [1, 3], ids=["fewer", "more"])
def test_configs_of_a_text_encoder_of_another_depth_are_refused(layers: int, folders: dict[str, Path], tmp_path: Path):
    other = Path(shutil.copytree(folders["sdxl"], tmp_path / "other"))
    config = other / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": layers}))

    with pytest.raises(WeightsRefused, match="--config"):
        convert_single_file(single_file(folders["sdxl"]), other, tmp_path / "made")


def test_a_conversion_that_changed_a_weight_is_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    true_load = single_files._load_and_save

    def load(*given: Any) -> None:
        true_load(*given)
        weights = given[-1] / "vae" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        tensors["decoder.conv_out.bias"] += 1
        save_file(tensors, weights)

    monkeypatch.setattr(single_files, "_load_and_save", load)
    with pytest.raises(WeightsRefused, match=r"another 'first_stage_model\.decoder\.conv_out\.bias'"):
        convert_single_file(single_file(folders["sd1"]), folders["sd1"], tmp_path / "made")


def test_configs_that_name_another_library_are_refused_before_it_is_imported(folders: dict[str, Path], tmp_path: Path):
    other = Path(shutil.copytree(folders["sd1"], tmp_path / "other"))
    index = other / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["antigravity", "UNet2DConditionModel"]}))

    with pytest.raises(WeightsRefused, match="wants unet of another library than diffusers' own"):
        convert_single_file(single_file(folders["sd1"]), other, tmp_path / "made")


def test_configs_of_another_family_are_refused(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(WeightsRefused, match="is a StableDiffusionPipeline; the file needs StableDiffusionXLPipeline"):
        convert_single_file(single_file(folders["sdxl"]), folders["sd1"], tmp_path / "made")


def test_a_file_with_weights_that_the_configs_do_not_have_is_refused(folders: dict[str, Path], tmp_path: Path):
    tensors = load_file(single_file(folders["sd1"]))
    save_file(tensors | {"model.diffusion_model.extra.weight": torch.zeros(1)}, tmp_path / "more.safetensors")

    with pytest.raises(WeightsRefused, match=r"no place for 'model\.diffusion_model\.extra\.weight'"):
        convert_single_file(tmp_path / "more.safetensors", folders["sd1"], tmp_path / "made")


def test_without_configs_the_family_is_named_with_what_to_give(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(WeightsRefused, match=r"is of the family sdxl; .*--config FOLDER"):
        convert_single_file(single_file(folders["sdxl"]), None, tmp_path / "made")


def test_a_pickle_is_refused_before_anything_is_read_of_it(tmp_path: Path, folders: dict[str, Path]):
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02}q\x00.")

    with pytest.raises(WeightsRefused, match="pickle"):
        convert_single_file(tmp_path / "model.ckpt", folders["sd1"], tmp_path / "made")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.diffusion_model.a", "conditioner.embedders.0.model.b"], "SDXL's refiner"),
        (["model.diffusion_model.a", "cond_stage_model.model.b"], "Stable Diffusion 2"),
        (["lora_unet_down_blocks_0.alpha"], "a LoRA"),
        (["unet.conv_in.weight"], "the folder that it came with"),
        (["model.diffusion_model.a"], "no text encoder"),
        (["double_blocks.0.img_attn.qkv.weight"], "names of none of them"),
    ],
)
def test_what_is_no_base_model_of_a_known_family_is_refused_by_what_it_is(names: list[str], said: str):
    with pytest.raises(WeightsRefused, match=f"is no single file of the family sd1 or sdxl: .*{said}"):
        family_of("model.safetensors", names)
