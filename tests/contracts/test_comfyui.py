"""What we export opens in a real ComfyUI: its own detection and loading, key by key, at the families' real sizes.

At the sizes that tests train it knows no model: it tells Stable Diffusion 1.5 and XL by their widths. So names and
shapes are those of the real models, made without memory, as our exports write them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.training.adapters.kohya_keys import kohya_tensors
from flows.training.adapters.layers import adapter_parameters, form_of, inject, target_layers
from flows.training.exports.single_files import write_single_file
from flows.training.tensor_files import write_tensors
from tests.comfyui import read_by_comfyui
from tests.flows.diffusion.reference import decoded_by_vae
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.real_shapes import SD15, write_base
from tests.flows.training.tiny import FAMILY, recipe

KINDS = {"sd1": "SD15", "sdxl": "SDXL"}
WANTED: dict[str, dict[str, Any]] = {
    "attention": {},
    "everything": {"lora_targets": "all-linear", "lora_conv": True},
    "dora": {"lora_dora": True, "lora_targets": "transformer"},
}
# The configs of the published folders, but for what does not change a tensor.
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"sample_size": 64, "cross_attention_dim": 768},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def text_config(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
    )


def parts_of(family: str) -> dict[str, nn.Module]:
    """The parts of the real model without memory, by the names of their folders."""
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel(**UNETS[family]),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(text_config(768, 12, 12)),
        }
        if family == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(text_config(1280, 32, 20))
    return parts


def single_file(family: str, parts: Mapping[str, nn.Module], file: Path) -> Path:
    """The names and shapes that our single file of these parts has."""
    states: dict[str, dict[str, Tensor]] = {name: part.state_dict() for name, part in parts.items()}
    tensors = family_named(family).original_tensors(states, {})
    file.write_text(json.dumps({name: list(tensor.shape) for name, tensor in tensors.items()}))
    return file


@pytest.fixture(scope="module")
def comfyui(comfyui_folder: Path) -> Path:
    """The folder that it is installed in, by the first test."""
    return comfyui_folder


@dataclass(frozen=True)
class Read:
    """What ComfyUI found in the files of a family: in the single file, and in each adapter's, by name."""

    family: str
    found: dict[str, Any]
    layers: dict[str, int]


@pytest.fixture(scope="module", params=["sd1", pytest.param("sdxl", marks=pytest.mark.soak)])
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, comfyui: Path) -> Read:
    """Everything of a family in one process: to start it takes longest."""
    folder, family = tmp_path_factory.mktemp("files"), request.param
    shapes = single_file(family, parts_of(family), folder / "shapes.json")
    layers = {name: write_adapter(family, options, folder / name) for name, options in WANTED.items()}
    return Read(family, read_by_comfyui(comfyui, "keys", shapes, *(folder / name for name in layers)), layers)


def write_adapter(family: str, options: dict[str, Any], file: Path) -> int:
    """An adapter in the form that people download, kohya's; returns how many layers it has."""
    parts, wanted = parts_of(family), lora_recipe(**options)
    layers, tensors = 0, dict[str, Tensor]()
    for component in (one for one in parts if one != "vae"):
        targets = target_layers(component, parts[component], wanted)
        inject(parts[component], form_of(wanted), targets)
        layers += len(targets)
        tensors |= adapter_parameters(component, parts[component])
    tensors = {key: torch.zeros(tensor.shape) for key, tensor in tensors.items()}
    write_tensors(file, kohya_tensors(tensors, wanted.lora_alpha, parts["unet"], xl=family == "sdxl"), {})
    return layers


def test_every_tensor_of_the_single_file_has_its_place(read: Read) -> None:
    found = read.found
    assert (found["kind"], found["type"]) == (KINDS[read.family], "EPS")
    for part, least in {"unet": 680, "vae": 240, "clip": 190}.items():
        assert found[part]["differ"] == [], part
        assert int(found[part]["same"][0]) >= least
        # Strict readers of other tools look for it; it is a counter.
        assert set(found[part]["unexpected"]) <= {"clip_l.transformer.text_model.embeddings.position_ids"}
    assert found["unet"]["missing"] == found["vae"]["missing"] == []
    # What it has beside the published encoders, and leaves at its own start where a file has none.
    own = {"clip_l.logit_scale", "clip_g.logit_scale", "clip_l.transformer.text_projection.weight"}
    assert set(found["clip"]["missing"]) <= own


@pytest.mark.parametrize("wanted", WANTED)
def test_every_tensor_of_an_adapter_finds_its_layer(read: Read, wanted: str) -> None:
    # diffusers' form is for diffusers: ComfyUI reads its names of before PEFT alone.
    [found] = [one for file, one in read.found["adapters"].items() if file.endswith(f"/{wanted}")]
    assert (found["left"], found["odd"]) == ([], [])
    assert found["layers"] == read.layers[wanted]


@pytest.mark.soak
def test_it_predicts_what_we_do_with_the_files_of_a_base_and_of_an_adapter(comfyui: Path, tmp_path: Path) -> None:
    # As wide as it has to be to be known, and no wider: the levels of the UNet are of one width.
    shape = replace(SD15, unet=(320, 320, 320, 320))
    base = write_base(tmp_path / "base", shape)
    write_single_file(FAMILY, base, recipe(), "5" * 64, tmp_path / "single.safetensors")
    wanted = lora_recipe(lora_targets="transformer", lora_conv=True)
    draw = torch.Generator().manual_seed(5)
    given = {
        "noisy": torch.randn(2, 4, 8, 8, generator=draw),
        "timesteps": torch.tensor([700, 20]),
        "context": torch.randn(2, 77, 768, generator=draw),
        "tokens": torch.tensor([[49406, *range(320, 330), *[49407] * 66]]),
    }
    save_file(given, tmp_path / "inputs.safetensors")
    components, tensors = FAMILY.load(base), dict[str, Tensor]()
    ours = predicted(components, given, "plain")
    for name in ("unet", "text_encoder"):
        module = components.modules[name]
        inject(module, form_of(wanted), target_layers(name, module, wanted))
        for key, parameter in adapter_parameters(name, module).items():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.05)
            tensors[key] = parameter.detach()
    ours |= predicted(components, given, "adapted")
    write_tensors(
        tmp_path / "lora.safetensors", kohya_tensors(tensors, wanted.lora_alpha, components.unet, xl=False), {}
    )
    names = ("single", "lora", "inputs", "outputs")
    read_by_comfyui(comfyui, "predict", *(tmp_path / f"{name}.safetensors" for name in names))
    theirs = load_file(tmp_path / "outputs.safetensors")
    for name, expected in ours.items():
        apart = (theirs[name] - expected).abs().max() / expected.abs().max()
        assert apart < 2e-3, (name, float(apart))
    for kind in ("", "-text"):
        moved = (ours[f"adapted{kind}"] - ours[f"plain{kind}"]).abs().max() / ours[f"plain{kind}"].abs().max()
        assert moved > 0.02, (kind, float(moved))


def predicted(components: Components, given: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What the parts make of inputs: noise, the text encoder's states, pixels."""
    unet: Any = components.unet
    text: Any = components.text_encoder
    with torch.no_grad():
        noise = unet(given["noisy"], given["timesteps"], given["context"], return_dict=False)[0]
        states = text(given["tokens"]).last_hidden_state
        return {name: noise, f"{name}-text": states, "pixels": decoded_by_vae(components, given["noisy"])}
