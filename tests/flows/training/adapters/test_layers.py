"""Which layers get an adapter, and with what numbers it begins."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.adapters.layers import (
    AdapterForm,
    adapter_metadata,
    adapter_parameters,
    inject,
    lay_out,
    seed_weights,
    target_layers,
)
from storage.errors import JobCannotSucceed
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY

UP = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def ends(layers: list[str]) -> set[str]:
    """The last part of each name, numbers aside."""
    return {".".join(layer.split(".")[-2:]) if layer.endswith(".0") else layer.split(".")[-1] for layer in layers}


def test_each_choice_of_targets_has_the_layers_of_the_one_before(components: Components) -> None:
    names = ["attention", "attention-feed-forward", "transformer", "all-linear"]
    for component in ("unet", "text_encoder"):
        module = components.modules[component]
        sets = [set(target_layers(component, module, lora_recipe(lora_targets=name))) for name in names]
        assert all(small <= large for small, large in pairwise(sets))
        assert ends(sorted(sets[0])) <= set(UP)
    unet = target_layers("unet", components.unet, lora_recipe(lora_targets="transformer"))
    assert {"proj_in", "proj_out", "proj", "to_q", "to_out.0"} <= ends(unet)
    assert "time_embedding.linear_1" in target_layers("unet", components.unet, lora_recipe(lora_targets="all-linear"))


def test_convolutions_are_those_of_residual_blocks_and_samplers(components: Components) -> None:
    plain = set(target_layers("unet", components.unet, lora_recipe()))
    added = set(target_layers("unet", components.unet, lora_recipe(lora_conv=True))) - plain
    assert ends(sorted(added)) == {"conv1", "conv2", "conv_shortcut", "conv"}
    assert "conv_in" not in added


def test_a_pattern_keeps_adapters_to_the_layers_it_names(components: Components) -> None:
    found = target_layers("unet", components.unet, lora_recipe(train_only="unet.*attn2.to_k*, unet.mid_block.*to_q*"))
    assert found
    assert all(name.endswith("attn2.to_k") or name.startswith("mid_block") for name in found)


def test_a_model_without_such_layers_is_refused(components: Components) -> None:
    with pytest.raises(JobCannotSucceed, match="'attention' names no layer of this base's vae"):
        target_layers("vae", torch.nn.Sequential(torch.nn.Linear(2, 2)), lora_recipe())


def test_an_adapter_begins_as_nothing_and_with_the_seeds_numbers(components: Components) -> None:
    prompt = ["a photo of a sks mug"]
    before = FAMILY.encode_prompts(components, prompt).tensors["encoder_hidden_states"]
    layers = target_layers("text_encoder", components.text_encoder, lora_recipe())
    state = torch.random.get_rng_state()
    inject(components.text_encoder, AdapterForm(rank=3, alpha=1.0), layers)
    parameters = adapter_parameters("text_encoder", components.text_encoder)
    seed_weights(parameters, 7)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is as it was"
    assert torch.equal(FAMILY.encode_prompts(components, prompt).tensors["encoder_hidden_states"], before)
    first = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    downs = [tensor for name, tensor in first.items() if name.endswith("lora_A.weight")]
    assert len(downs) == len(layers)
    bound = 1 / downs[0].shape[1] ** 0.5  # PEFT's start: uniform in 1 / sqrt(inputs)
    assert bound * 0.7 < float(downs[0].abs().max()) <= bound
    seed_weights({name: parameters[name] for name in list(parameters)[:1]}, 7)
    assert all(torch.equal(parameter, first[name]) for name, parameter in parameters.items()), "in any company the same"
    seed_weights(parameters, 8)
    assert not torch.equal(parameters[next(iter(first))], first[next(iter(first))])


def test_an_adapter_is_float32_beside_weights_of_half_the_size(components: Components) -> None:
    components.unet.to(torch.bfloat16)
    inject(components.unet, AdapterForm(rank=2, alpha=2.0), target_layers("unet", components.unet, lora_recipe()))
    assert {parameter.dtype for parameter in adapter_parameters("unet", components.unet).values()} == {torch.float32}


@pytest.mark.parametrize("dora", [False, True])
def test_diffusers_is_told_form_and_layers_of_each_component(dora: bool) -> None:
    names = ["unet.mid_block.proj_in.lora_A.weight", "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_B.weight"]
    said = json.loads(adapter_metadata(dict.fromkeys(names), AdapterForm(rank=2, alpha=6.0, dora=dora)))
    assert said == {
        f"{component}.{key}": value
        for component, layer in (("unet", "mid_block.proj_in"), ("text_encoder_2", "encoder.layers.0.mlp.fc1"))
        for key, value in {"r": 2, "lora_alpha": 6.0, "use_dora": dora, "target_modules": [layer]}.items()
    }


def test_rows_are_laid_out_one_behind_the_other() -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    values = parameter.detach().clone()
    lay_out([parameter])
    assert parameter.is_contiguous()
    assert torch.equal(parameter, values)
