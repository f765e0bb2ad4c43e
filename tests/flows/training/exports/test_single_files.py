"""What a single file says of itself, beside its tensors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from flows.diffusion.families.lookup import family_named
from flows.training.exports.single_files import SCHEDULE_FILE, metadata, read_schedule, write_single_file
from flows.training.tensor_files import payload_sha256, read_metadata
from storage.blobs.hashing import hash_again
from storage.blobs.weights import check_weights
from tests.flows.training.tiny import FAMILY, recipe

RECIPE_HASH = "5" * 64


@pytest.fixture
def single_file(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model in one file."""
    write_single_file(FAMILY, tiny_model, recipe(), RECIPE_HASH, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def header_of(file: Path) -> dict[str, dict[str, str]]:
    with file.open("rb") as stream:
        return json.loads(stream.read(int.from_bytes(stream.read(8), "little")))


def test_the_names_are_those_of_the_familys_own_checkpoints(single_file: Path):
    names = set(check_weights(single_file).tensors)

    starts = {"model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."}
    assert {next(start for start in starts if name.startswith(start)) for name in names} == starts
    assert "cond_stage_model.transformer.text_model.embeddings.position_ids" in names


def test_the_header_is_sorted_and_names_no_date_job_or_host(single_file: Path):
    header = header_of(single_file)
    facts = header["__metadata__"]

    assert list(header) == sorted(header)
    assert list(facts) == sorted(facts)
    assert facts["modelspec.architecture"] == "stable-diffusion-v1"
    assert facts["modelspec.trigger_phrase"] == facts["modelspec.title"] == "sks mug"
    assert facts["ss_base_model_version"] == "sd_v1"
    assert facts["darkroom.recipe"] == RECIPE_HASH
    assert not any(re.search(r"date|job|host|time(?!step)", key) for key in facts)


def test_the_hashes_in_the_header_are_those_of_the_bytes(single_file: Path):
    facts = read_metadata(single_file)
    hashes = hash_again(single_file, single_file.stat().st_size).finish().hashes

    assert facts["sshs_model_hash"] == payload_sha256(single_file)
    assert facts["sshs_model_hash"].upper().startswith(hashes.auto_v3 or "-")
    assert facts["sshs_legacy_hash"].upper() == hashes.auto_v1


def test_the_header_says_all_of_the_recipe_that_tools_show():
    wanted = recipe(
        resolution=768,
        steps=20,
        batch_size=3,
        accumulation=5,
        optimizer="lion",
        learning_rate=2e-6,
        text_encoder_learning_rate=3e-7,
        prior_loss_weight=0.5,
        regularization_count=40,
        seed=11,
    )

    assert metadata(FAMILY, wanted, RECIPE_HASH, {}) == {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "sks mug",
        "modelspec.resolution": "768x768",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": "sks mug",
        "ss_output_name": "sks mug",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_v_parameterization": "False",
        "ss_resolution": "(768, 768)",
        "ss_steps": "20",
        "ss_max_train_steps": "20",
        "ss_batch_size_per_device": "3",
        "ss_optimizer": "lion",
        "ss_seed": "11",
        "ss_learning_rate": "2e-06",
        "ss_unet_lr": "2e-06",
        "ss_text_encoder_lr": "3e-07",
        "ss_prior_loss_weight": "0.5",
        "ss_num_reg_images": "40",
        "darkroom.recipe": RECIPE_HASH,
        "darkroom.base_model": "b" * 64,
    }
    assert metadata(FAMILY, recipe(prior_loss_weight=0.0), RECIPE_HASH, {})["ss_num_reg_images"] == "0"
    of_xl = metadata(family_named("sdxl"), wanted, RECIPE_HASH, {})
    assert of_xl["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert of_xl["ss_base_model_version"] == "sdxl_base_v1-0"


@pytest.mark.parametrize(("kind", "said", "flag"), [("epsilon", "epsilon", "False"), ("v_prediction", "v", "True")])
def test_what_the_model_predicts_is_said_in_the_standards_words(kind: str, said: str, flag: str, tiny_model: Path):
    facts = metadata(FAMILY, recipe(), RECIPE_HASH, {**read_schedule(tiny_model), "prediction_type": kind})

    assert (facts["modelspec.prediction_type"], facts["ss_v_parameterization"]) == (said, flag)


def test_a_schedule_is_read_from_its_folder(tiny_model: Path):
    assert read_schedule(tiny_model) == msgspec.json.decode((tiny_model / SCHEDULE_FILE).read_bytes())
