from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from storage.errors import WeightsRefused
from tests.flows.diffusion.reference import decoded_by_vae, posterior_of
from tests.flows.training.tiny import FAMILY


def test_every_part_is_loaded_in_float32_frozen_and_at_rest(components: Components):
    for module in components.modules.values():
        assert not module.training
        for parameter in module.parameters():
            assert parameter.dtype == torch.float32
            assert not parameter.requires_grad


def test_prompts_are_encoded_as_the_diffusers_pipeline_encodes_them(components: Components, tiny_model: Path):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    theirs, _ = pipeline.encode_prompt("a photo of a mug", "cpu", 1, False)
    ours = FAMILY.encode_prompts(components, ["a photo of a mug"]).tensors["encoder_hidden_states"]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_prompts_encoding_does_not_depend_on_the_others(components: Components):
    together = FAMILY.encode_prompts(components, ["a mug", "a car on the beach"])
    alone = FAMILY.encode_prompts(components, ["a car on the beach"])
    picked = together.take([1]).tensors["encoder_hidden_states"]
    assert torch.allclose(picked, alone.tensors["encoder_hidden_states"], atol=1e-6)


def test_a_prompt_longer_than_the_encoder_is_cut_where_it_ends(components: Components):
    long = "a photo of a mug " * 20
    whole, cut = (
        FAMILY.encode_prompts(components, [text]).tensors["encoder_hidden_states"]
        for text in (long, long + "in the snow")
    )
    assert whole.shape[1] == 32
    assert torch.equal(whole, cut)


def test_images_come_back_from_the_latents_scale(components: Components):
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    mean, std = FAMILY.encode_images(components, pixels)
    assert mean.shape == std.shape == (1, 4, 16, 16)
    plain = decoded_by_vae(components, posterior_of(components, pixels).mean)
    assert torch.allclose(FAMILY.decode_latents(components, mean), plain, atol=1e-4)


def test_a_folder_without_a_part_is_refused_by_the_missing_files_name(tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsRefused, match=r"lacks unet/diffusion_pytorch_model\.safetensors"):
        FAMILY.load(folder)


def test_an_unknown_prediction_type_is_refused(components: Components):
    components.noise_schedule.register_to_config(prediction_type="sample")
    with pytest.raises(WeightsRefused, match="prediction_type 'sample'"):
        FAMILY.noise_target(components, torch.zeros(1), torch.zeros(1), torch.zeros(1))


def test_an_unknown_family_is_refused_by_name():
    with pytest.raises(WeightsRefused, match="'sd9' is unknown; known are: sd1"):
        family_named("sd9")
