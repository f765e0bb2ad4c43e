"""kohya's names, read back by diffusers' own readers of such files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from flows.training.adapters.files import diffusers_tensors
from flows.training.adapters.kohya_keys import kohya_tensors
from flows.training.adapters.layers import AdapterForm, adapter_metadata, adapter_parameters, inject, target_layers
from flows.training.tensor_files import write_tensors
from storage.blobs.families import check_model_file
from storage.records.catalog.catalog import Checked
from storage.records.catalog.vocabulary import FileType, ModelType
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.adapters.tiny_xl import XlParts, tiny_xl

FORM = AdapterForm(rank=2, alpha=6.0)
WANTED: list[dict[str, Any]] = [
    {},
    {"lora_targets": "transformer"},
    {"lora_targets": "all-linear", "lora_conv": True},
]


def adapted(modules: Mapping[str, nn.Module], form: AdapterForm = FORM, **wanted: Any) -> dict[str, Tensor]:
    """Random adapters on these modules, as if they were trained, by diffusers' names."""
    tensors: dict[str, Tensor] = {}
    draw = torch.Generator().manual_seed(5)
    for name, module in modules.items():
        inject(module, form, target_layers(name, module, lora_recipe(**wanted)))
        for key, parameter in adapter_parameters(name, module).items():
            with torch.no_grad():
                parameter += torch.randn(parameter.shape, generator=draw) * 0.1
            tensors[key] = parameter.detach()
    return tensors


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_diffusers_finds_every_layer_of_stable_diffusion_xl(tmp_path: Path, wanted: dict[str, Any], form: str) -> None:
    parts, plain = tiny_xl(), tiny_xl().predict()
    tensors = adapted(parts.modules, **wanted)
    ours = parts.predict()
    assert (ours - plain).abs().max() > 1e-2
    file = tmp_path / "lora.safetensors"
    if form == "kohya":
        write_tensors(file, kohya_tensors(tensors, FORM.alpha, parts.unet, xl=True), {})
        assert check_model_file(file, "sdxl", ModelType.LORA, FileType.MODEL).checked is Checked.FAMILY
    else:
        named = diffusers_tensors(tensors)
        write_tensors(file, named, {"lora_adapter_metadata": adapter_metadata(named, FORM)})
    read = tiny_xl()
    load_as_the_pipeline_does(read, file)
    assert torch.allclose(read.predict(), ours, atol=1e-5)


def load_as_the_pipeline_does(parts: XlParts, file: Path) -> None:
    loader = StableDiffusionXLLoraLoaderMixin
    found: Any = loader.lora_state_dict(
        str(file.parent), weight_name=file.name, unet_config=parts.unet.config, return_lora_metadata=True
    )
    state, alphas, metadata = found
    options: dict[str, Any] = {"network_alphas": alphas, "metadata": metadata}
    loader.load_lora_into_unet(state, unet=parts.unet, **options)
    for name in ("text_encoder", "text_encoder_2"):
        loader.load_lora_into_text_encoder(state, text_encoder=parts.modules[name], prefix=name, **options)


def test_blocks_of_xl_are_numbered_through_all_levels() -> None:
    names = kohya_tensors(adapted({"unet": tiny_xl().unet}, lora_conv=True), 1.0, tiny_xl().unet, xl=True)
    for layer in (
        "input_blocks_1_0_in_layers_2",
        "input_blocks_3_0_op",
        "input_blocks_4_0_skip_connection",
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "input_blocks_8_1_transformer_blocks_1_attn2_to_out_0",
        "middle_block_1_transformer_blocks_0_attn1_to_v",
        "middle_block_2_out_layers_3",
        "output_blocks_2_2_conv",
        "output_blocks_5_1_transformer_blocks_0_attn2_to_k",
        "output_blocks_8_0_out_layers_3",
    ):
        assert f"lora_unet_{layer}.lora_down.weight" in names, layer


def test_a_doras_lengths_stand_along_the_rows_of_its_weight() -> None:
    unet = tiny_xl().unet
    names = kohya_tensors(adapted({"unet": unet}, AdapterForm(2, 2.0, dora=True), lora_conv=True), 2.0, unet, xl=False)
    assert names["lora_unet_down_blocks_0_resnets_0_conv1.dora_scale"].shape == (8, 1, 1, 1)
    attention = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    assert names[f"{attention}.dora_scale"].shape == (16, 1)
    assert not [name for name in names if "magnitude" in name]


def test_a_file_of_stable_diffusion_1_passes_the_catalogues_check(tmp_path: Path) -> None:
    parts = tiny_xl()
    unet = UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=768,
    )
    modules = {"unet": unet, "text_encoder": parts.text_encoder}
    tensors = adapted(modules, AdapterForm(2, 2.0, dora=True), lora_targets="all-linear", lora_conv=True)
    kohya = kohya_tensors(tensors, 2.0, unet, xl=False)
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in kohya
    for name, written in (("kohya", kohya), ("diffusers", diffusers_tensors(tensors))):
        write_tensors(tmp_path / name, written, {})
        assert check_model_file(tmp_path / name, "sd1", ModelType.LORA, FileType.MODEL).checked is Checked.FAMILY
