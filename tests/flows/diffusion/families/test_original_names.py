"""The single file's names, read by diffusers' own conversion: the same tensors and the same image come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import nn

from deployments.local.seed import STARTER_FOLDER
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.original_names import unet_names, vae_names
from flows.training.exports.single_files import read_schedule, tensors_of
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from tests.flows.diffusion.families.shapes import UNETS, rename_vae_attention, write_odd_model
from tests.flows.diffusion.reference import drawn_by
from tests.storage.blobs.test_families import sd1_unet

SD1 = family_named("sd1")


def as_single_file(folder: Path, file: Path) -> Path:
    """The folder's weights in one file of the family's own names."""
    parts = {name: tensors_of(folder / path) for name, path in SD1.layout.weight_files.items()}
    tensors = SD1.original_tensors(parts, read_schedule(folder))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def image_of(pipeline: StableDiffusionPipeline) -> Any:
    seeded = torch.Generator().manual_seed(3)
    return drawn_by(pipeline, "a photo of a mug", generator=seeded, num_inference_steps=2, output_type="np")


def own_memory(module: nn.Module) -> None:
    """Take the weights out of the file's mapped pages: at another place in its file a tensor begins at another place in
    a page, and a kernel that sums from there rounds otherwise."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def assert_loads_alike(file: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    one = StableDiffusionPipeline.from_single_file(str(file), config=str(folder), local_files_only=True)
    whole = StableDiffusionPipeline.from_pretrained(folder)
    for name in SD1.layout.weight_files:
        ours, theirs = (getattr(pipeline, name).state_dict() for pipeline in (one, whole))
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
        for pipeline in (one, whole):
            own_memory(getattr(pipeline, name))
    assert np.array_equal(image_of(one), image_of(whole))


def test_the_starter_comes_back_from_its_single_file_as_it_was(tmp_path: Path):
    assert_loads_alike(as_single_file(STARTER_FOLDER, tmp_path / "model.safetensors"), STARTER_FOLDER)


@pytest.mark.parametrize("shape", UNETS)
def test_a_model_of_any_shape_comes_back_from_its_single_file(shape: str, tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "odd"
    write_odd_model(tiny_model, folder, shape)

    assert_loads_alike(as_single_file(folder, tmp_path / "model.safetensors"), folder)


def test_attention_under_its_names_of_2022_comes_back_too(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "old"
    write_odd_model(tiny_model, folder, next(iter(UNETS)))
    rename_vae_attention(folder)

    file = as_single_file(folder, tmp_path / "model.safetensors")
    assert_loads_alike(file, folder)
    # CompVis' attention of a VAE is of convolutions, and strict readers compare shapes.
    tensors = check_weights(file).tensors
    attention = [f"first_stage_model.decoder.mid.attn_1.{one}.weight" for one in ("q", "k", "v", "proj_out")]
    assert {tensors[name].shape[2:] for name in attention} == {(1, 1)}


def test_the_unets_names_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64, 96, 96), cross_attention_dim=8, attention_head_dim=8, layers_per_block=2
        )

    assert set(unet_names(unet.state_dict()).values()) == sd1_unet()


def test_the_vaes_names_are_those_of_the_published_checkpoint():
    published = {
        "decoder.up_blocks.0.upsamplers.0.conv.weight": "decoder.up.3.upsample.conv.weight",
        "decoder.up_blocks.3.resnets.0.conv_shortcut.bias": "decoder.up.0.block.0.nin_shortcut.bias",
        "encoder.down_blocks.1.downsamplers.0.conv.weight": "encoder.down.1.downsample.conv.weight",
        "encoder.mid_block.attentions.0.group_norm.weight": "encoder.mid.attn_1.norm.weight",
        "encoder.conv_norm_out.weight": "encoder.norm_out.weight",
        "post_quant_conv.bias": "post_quant_conv.bias",
    }

    assert {name: one.removeprefix("first_stage_model.") for name, one in vae_names(published).items()} == published


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["down_blocks.0.resnets.0.norm3.weight", "up_blocks.0.resnets.1.a.b", "up_blocks.0.resnets.0.a.b"],
            "no place",
        ),
        (["down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight"], "one number for all"),
        (["encoder_hid_proj.weight"], "one number for all"),
    ],
)
def test_a_unet_that_the_original_code_cannot_hold_is_refused(names: list[str], said: str):
    with pytest.raises(WeightsRefused, match=said):
        unet_names(names)


def test_a_vae_that_the_original_code_cannot_hold_is_refused():
    with pytest.raises(WeightsRefused, match=r"'encoder\.mid_block\.attentions\.0\.norm_q\.weight' has no place"):
        vae_names(["encoder.mid_block.attentions.0.norm_q.weight"])
