"""What a model is, by the metadata and tensors of its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deployments.importing.model_metadata import Described, describe
from storage.blobs.weights import check_weights
from storage.records.catalog.vocabulary import ModelType
from tests.deployments.importing.test_model_folders import DOWN


def described(folder: Path, names: dict[str, tuple[int, ...]], **metadata: str) -> Described:
    """What a file with these tensors and this metadata says."""
    path = folder / "model.safetensors"
    save_file({name: np.zeros(shape, np.float16) for name, shape in names.items()}, path, metadata or None)
    return describe(check_weights(path))


@pytest.mark.parametrize(
    ("metadata", "base"),
    [
        ({"ss_base_model_version": "sd_v1"}, "SD 1.5"),
        ({"ss_base_model_version": "sd_v2_v"}, "SD 2.1"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL 1.0"),
        ({"ss_base_model_version": "flux1"}, "Flux.1 D"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SDXL 1.0"),
        ({"modelspec.architecture": "flux-1-dev/lora", "ss_base_model_version": "sd_v1"}, "Flux.1 D"),
        ({"modelspec.architecture": "Stable-Diffusion-v1"}, "SD 1.5"),
        ({"ss_base_model_version": "sd1", "ss_resolution": "64x64"}, "Other"),
        ({"ss_base_model_version": "sd1", "ss_resolution": "512x512"}, "SD 1.5"),
        ({"ss_base_model_version": "None"}, "SD 2.1"),
        ({}, "SD 2.1"),
    ],
)
def test_the_base_model_is_what_the_metadata_says_or_the_tensors_show(
    metadata: dict[str, str], base: str, tmp_path: Path
):
    assert described(tmp_path, {DOWN: (4, 1024)}, **metadata).base_model == base


@pytest.mark.parametrize(
    ("names", "kind", "base"),
    [
        ({DOWN: (4, 768)}, ModelType.LORA, "SD 1.5"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (4, 4)}, ModelType.LORA, "SDXL 1.0"),
        ({"lora_unet_conv_in.hada_w1_a": (4, 4)}, ModelType.LOCON, "Other"),
        ({"lora_unet_conv_in.dora_scale": (4,), "lora_unet_conv_in.lora_up.weight": (4, 4)}, ModelType.DORA, "Other"),
        ({"unet.mid_block.attentions.0.attn1.to_q.lora_A.weight": (4, 4)}, ModelType.LORA, "Other"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (4,)}, ModelType.CHECKPOINT, "Other"),
        ({"double_blocks.0.img_attn.qkv.weight": (4, 4)}, ModelType.UNET, "Flux.1 D"),
        ({"decoder.conv_in.weight": (4,)}, ModelType.VAE, "Other"),
        ({"emb_params": (3, 768)}, ModelType.TEXTUAL_INVERSION, "Other"),
        ({"clip_l": (3, 768), "clip_g": (3, 1280)}, ModelType.TEXTUAL_INVERSION, "Other"),
        ({"controlnet_cond_embedding.conv_in.weight": (4,)}, ModelType.CONTROLNET, "Other"),
        ({"what.is.this": (4, 4)}, ModelType.OTHER, "Other"),
    ],
)
def test_the_type_is_what_the_tensors_show(
    names: dict[str, tuple[int, ...]], kind: ModelType, base: str, tmp_path: Path
):
    found = described(tmp_path, names)
    assert (found.type, found.base_model) == (kind, base)


@pytest.mark.parametrize(
    "frequency",
    ["", "[]", "null", "{", '{"a": 1}', '{"a": {"b": "c"}}', "[" * 5000, '{"a": {}}', '{"1_\\ud800": {"\\u0000": 1}}'],
)
def test_metadata_that_is_not_what_it_should_be_says_nothing(frequency: str, tmp_path: Path):
    wild = {
        "ss_tag_frequency": frequency,
        "ss_steps": "many",
        "ss_epoch": "-1",
        "ss_clip_skip": "99",
        "ss_dataset_dirs": frequency,
    }
    found = described(tmp_path, {DOWN: (4, 768)}, **wild)
    assert (found.title, found.steps, found.epochs, found.clip_skip) == (None, None, None, None)
    assert found.trained_words == found.tags == ()


def test_a_trigger_phrase_goes_before_folders_and_tags(tmp_path: Path):
    frequency = json.dumps({"5_sks mug": {"mug": 5, "table, wood": 2}})
    folders = described(tmp_path, {DOWN: (4, 768)}, ss_tag_frequency=frequency)
    assert (folders.trained_words, folders.tags) == (("sks mug", "mug"), ("mug",))
    said = described(
        tmp_path, {DOWN: (4, 768)}, ss_tag_frequency=frequency, **{"modelspec.trigger_phrase": "a sks\nmug"}
    )
    assert said.trained_words == ("a sks mug",)


def test_captions_of_single_images_are_no_trigger_words(tmp_path: Path):
    frequency = json.dumps({"photos": {f"a mug on a table, view {number}": 1 for number in range(20)}})
    assert described(tmp_path, {DOWN: (4, 768)}, ss_tag_frequency=frequency).trained_words == ()
