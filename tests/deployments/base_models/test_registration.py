"""Registering base models: what is taken from a folder, and what is refused before anything is stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from deployments.base_models.base_folders import check_base_folder, shipped_folder
from deployments.base_models.registration import add_base_model, folder_hash
from deployments.local.seed import STARTER_FOLDER
from flows.starter.networks import write_tiny_model
from flows.training.regularization_steps import fetch_base_folder
from storage.errors import InUse, InvalidRequest, WeightsRefused
from storage.postgres.jobs import base_models
from storage.settings import BlobSettings, PostgresSettings, Settings
from storage.stores import Stores, open_stores


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound base model folder of random weights."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_tiny_model(folder, seed=1)
    return folder


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the sound folder for one test to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def stores(module_database_url: str, tmp_path: Path) -> Iterator[Stores]:
    """Stores of one test: the module's database, blobs of its own."""
    settings = Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr(module_database_url)),
        blobs=BlobSettings(url=(tmp_path / "blobs").as_uri()),
    )
    with open_stores(settings) as opened:
        yield opened


def edit(path: Path, **values: object) -> None:
    """Set values in a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_the_starter_that_comes_with_the_project_passes_the_check_that_it_is_spared() -> None:
    assert shipped_folder(STARTER_FOLDER) == check_base_folder(STARTER_FOLDER)


def test_a_folder_becomes_a_named_base_whose_files_come_back_as_they_were(
    stores: Stores, tiny_model: Path, tmp_path: Path
) -> None:
    base = add_base_model(stores, tiny_model, "tiny")
    files = stores.database.run(base_models.files(base.id))
    copy = stores.blobs.fetch_folder({file.path: file.sha256 for file in files}, tmp_path / "copy")

    assert base.facts.class_words[:2] == ("mug", "house")
    assert base.folder_hash == folder_hash({file.path: file.sha256 for file in files})
    assert {file.path for file in files} >= {"model_index.json", "unet/diffusion_pytorch_model.safetensors"}
    assert any(file.path.startswith("judge/") for file in files)
    assert check_base_folder(copy).files == check_base_folder(tiny_model).files
    assert add_base_model(stores, copy, "tiny") == base


def test_another_folder_takes_a_name_only_when_told_to(stores: Stores, folder: Path) -> None:
    first = add_base_model(stores, folder, "named")
    edit(folder / "darkroom.json", licence="other")

    with pytest.raises(InUse, match="--replace"):
        add_base_model(stores, folder, "named")
    second = add_base_model(stores, folder, "named", replace=True)

    assert second.folder_hash != first.folder_hash
    assert stores.database.run(base_models.by_name("named")) == second
    assert "named" in [base.name for base in stores.database.run(base_models.list_all())]


def test_a_folder_that_was_replaced_is_still_there_for_the_jobs_that_name_it(
    stores: Stores, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    edit(folder / "darkroom.json", licence="replaced, the first")
    edit(other / "darkroom.json", licence="replaced, the other")
    first = add_base_model(stores, folder, "replaced")
    files = stores.database.run(base_models.files(first.id))

    # Also when the two take turns.
    for again in (other, folder, other):
        current = add_base_model(stores, again, "replaced", replace=True)

    kept = stores.database.run(base_models.by_hash(first.folder_hash))
    assert kept.name == f"replaced@{first.folder_hash[:12]}"
    assert stores.database.run(base_models.files(kept.id)) == files
    assert fetch_base_folder(stores, first.folder_hash).is_dir()
    listed = [base.name for base in stores.database.run(base_models.list_all())]
    assert [name for name in listed if name.startswith("replaced")] == ["replaced"]
    assert stores.database.run(base_models.by_name("replaced")) == current
    assert kept in stores.database.run(base_models.list_replaced())


def test_two_that_replace_a_folder_at_once_wait_for_each_other(stores: Stores, folder: Path) -> None:
    card = add_base_model(stores, folder, "twice").facts
    replacing = partial(base_models.register, "twice", card=card, files=[], replace=True)
    rounds = 20
    with ThreadPoolExecutor(2) as pool:
        hashes = [f"{number:012x}".ljust(64, "0") for number in range(2 * rounds)]
        done = list(pool.map(lambda name: stores.database.run(lambda: replacing(folder_hash=name)), hashes))
    names = [base.name for base in stores.database.run(base_models.list_replaced())]
    assert {base.folder_hash for base in done} == {*hashes}
    assert not [name for name in names if name.count("@") > 1]
    assert len([name for name in names if name.startswith("twice@")]) == 2 * rounds


def test_without_a_card_the_facts_are_those_of_the_configs(folder: Path) -> None:
    (folder / "darkroom.json").unlink()

    card = check_base_folder(folder).card

    assert card.resolution == 64
    assert card.class_words == ()
    assert card.sampler.steps == 30


def test_what_the_platform_does_not_need_is_left_out(folder: Path) -> None:
    (folder / "v1-5-pruned.safetensors").write_bytes(b"one file with all weights")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"a pickle whose twin is there")
    (folder / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"a pickle beside safetensors")
    (folder / "text_encoder" / "pytorch_model.bin").write_bytes(b"a pickle beside safetensors")
    (folder / ".gitattributes").write_text("*.bin filter=lfs")
    (folder / "assets").mkdir()
    (folder / "assets" / "picture.json").write_text("not read")

    checked = check_base_folder(folder)

    assert set(checked.left_out) == {
        "v1-5-pruned.safetensors",
        "v1-5-pruned.ckpt",
        "unet/diffusion_pytorch_model.fp16.bin",
        "text_encoder/pytorch_model.bin",
        "assets/picture.json",
    }


def _pickled_unet(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def _renamed_pickle(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x02}q\x00.")


def _linked(folder: Path) -> None:
    (folder / "vae" / "config.json").rename(folder / "elsewhere.json")
    (folder / "vae" / "config.json").symlink_to(folder / "elsewhere.json")


def _foreign_tensors(folder: Path) -> None:
    weights = "diffusion_pytorch_model.safetensors"
    shutil.copy(folder / "vae" / weights, folder / "unet" / weights)


SPOILED = {
    "a pickle": (_pickled_unet, "unet/diffusion_pytorch_model.bin is a pickle, .*save_pretrained"),
    "a renamed pickle": (_renamed_pickle, "unet/diffusion_pytorch_model.safetensors is a pickle, which can run code"),
    "a link": (_linked, "vae/config.json is a link. .* cp -rL"),
    "code": (lambda folder: (folder / "unet" / "pipeline.py").write_text("x"), "unet/pipeline.py is code"),
    "foreign tensors": (_foreign_tensors, "which this part of the model family does not have"),
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json"),
    "no unet": (lambda folder: shutil.rmtree(folder / "unet"), "unet/ is missing"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer/ is missing"),
    "index not JSON": (lambda folder: (folder / "model_index.json").write_text("{"), "model_index.json is not JSON"),
    "deep JSON": (lambda folder: (folder / "vae" / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
    "another pipeline": (
        lambda folder: edit(folder / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        "names StableDiffusionXLPipeline; family sd1 needs StableDiffusionPipeline",
    ),
    "another family": (lambda folder: edit(folder / "darkroom.json", family="sd9"), "family 'sd9' is not supported"),
    "a misspelt card": (
        lambda folder: edit(folder / "darkroom.json", classWords=["mug"]),
        "unknown field 'classWords'",
    ),
    "a wrong card": (lambda folder: edit(folder / "darkroom.json", resolution="64"), r"Expected `int`, got `str`"),
    "another method": (
        lambda folder: edit(folder / "darkroom.json", training={"method": "dora"}),
        "training.method 'dora' is unknown; known are: full",
    ),
    "a wrong size": (
        lambda folder: edit(folder / "darkroom.json", resolution=63),
        "63 is not a positive multiple of 4",
    ),
    "an inpainting model": (lambda folder: edit(folder / "unet" / "config.json", in_channels=9), "takes 9 channels"),
    "mixed models": (lambda folder: edit(folder / "text_encoder" / "config.json", hidden_size=768), "different models"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_folder_that_is_not_sound_is_refused_and_nothing_is_stored(what: str, folder: Path, stores: Stores) -> None:
    spoil, message = SPOILED[what]
    spoil(folder)

    with pytest.raises(WeightsRefused, match=message):
        add_base_model(stores, folder, "spoiled")

    assert list(stores.blobs.list()) == []
    assert "spoiled" not in [base.name for base in stores.database.run(base_models.list_all())]


def test_a_name_is_plain(stores: Stores, tiny_model: Path) -> None:
    with pytest.raises(InvalidRequest, match="lower-case"):
        add_base_model(stores, tiny_model, "../SD 1.5")


def test_a_folders_hash_is_of_what_lies_where() -> None:
    one = folder_hash({"tokenizer/vocab.json": "1", "tokenizer_2/vocab.json": "2"})
    assert one == folder_hash({"tokenizer_2/vocab.json": "2", "tokenizer/vocab.json": "1"})
    assert one != folder_hash({"tokenizer/vocab.json": "2", "tokenizer_2/vocab.json": "1"})
