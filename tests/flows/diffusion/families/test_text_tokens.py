"""Layers of text encoders, beside diffusers' own pipelines on the same weights; and what weights do, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor, nn

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import HIDDEN_STATES, Components
from flows.diffusion.families.text_tokens import cut_rows, emphasized
from storage.errors import InvalidRequest
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl

SD1, SDXL = family_named("sd1"), family_named("sdxl")
PROMPTS = ["a photo of a mug", "a car in the snow"]
LAYERS = 4


def deeper(encoder: Any) -> nn.Module:
    """The encoder's kind with more layers, of random weights."""
    encoder.config.num_hidden_layers = LAYERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return type(encoder)(encoder.config).requires_grad_(False).eval()


@pytest.fixture
def sd1(components: Components) -> Components:
    return components.with_modules({"text_encoder": deeper(components.text_encoder)})


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl") / "tiny"
    write_tiny_sdxl(folder)
    return folder


@pytest.fixture
def sdxl(sdxl_folder: Path) -> Components:
    parts = SDXL.load(sdxl_folder)
    return parts.with_modules({name: deeper(encoder) for name, encoder in parts.text_encoders.items()})


def states_of(components: Components, clip_skip: int) -> Tensor:
    family = SD1 if len(components.text_encoders) == 1 else SDXL
    tokens = [cut_rows(tokenizer, PROMPTS) for tokenizer in components.tokenizers]
    return family.encode_tokens(components, tokens, clip_skip).tensors[HIDDEN_STATES]


@pytest.mark.parametrize("clip_skip", [1, 2, 3, 4])
def test_layers_of_sd1_are_those_of_diffusers_counted_from_one(clip_skip: int, sd1: Components, tiny_model: Path):
    encoder: Any = sd1.text_encoder
    # What diffusers 0.42 looks for the final layer norm in; transformers 5 has it in the encoder itself.
    encoder.__dict__["text_model"] = encoder
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, text_encoder=encoder)
    encode: Any = pipeline.encode_prompt
    theirs, _ = encode(PROMPTS, "cpu", 1, False, clip_skip=clip_skip - 1 or None)

    assert torch.equal(states_of(sd1, clip_skip), theirs)


@pytest.mark.parametrize("clip_skip", [2, 3, 4])
def test_layers_of_sdxl_are_those_of_diffusers_counted_from_two(clip_skip: int, sdxl: Components, sdxl_folder: Path):
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_folder, **sdxl.text_encoders)
    encode: Any = pipeline.encode_prompt
    made = encode(PROMPTS, device="cpu", do_classifier_free_guidance=False, clip_skip=clip_skip - 2 or None)

    tokens = [cut_rows(tokenizer, PROMPTS) for tokenizer in sdxl.tokenizers]
    ours = SDXL.encode_tokens(sdxl, tokens, clip_skip).tensors
    assert torch.equal(ours[HIDDEN_STATES], made[0])
    assert torch.equal(ours["text_embeds"], made[2])


def test_no_layer_asked_for_is_the_familys_own(sd1: Components, sdxl: Components):
    assert torch.equal(states_of(sd1, 0), states_of(sd1, 1))
    assert torch.equal(states_of(sdxl, 0), states_of(sdxl, 2))
    last = [encoder(cut_rows(tokenizer, PROMPTS).ids, output_hidden_states=True).hidden_states[-1]
            for tokenizer, encoder in zip(sdxl.tokenizers, sdxl.text_encoders.values(), strict=True)]  # fmt: skip
    assert torch.equal(states_of(sdxl, 1), torch.cat(last, dim=-1))


@pytest.mark.parametrize("clip_skip", [-1, LAYERS + 1])
def test_a_layer_that_an_encoder_has_not_is_refused(clip_skip: int, sd1: Components, sdxl: Components):
    for parts in (sd1, sdxl):
        with pytest.raises(InvalidRequest, match=f"{clip_skip} is none of the layers .* 0 to 4") as refused:
            states_of(parts, clip_skip)
        assert set(refused.value.fields) == {"clipSkip"}


def test_weights_multiply_each_row_and_leave_it_its_mean():
    states = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1)) + 0.3
    weights = torch.tensor([[1.0, 1.4, 1.4, 1.0, 1.0], [1.0, 0.5, -1.0, 0.0, 1.0]])

    made = emphasized(states, weights)

    for row in range(2):
        before = states[row].double().numpy()
        weighted = before * weights[row].double().numpy()[:, None]
        expected = weighted * (before.mean() / weighted.mean())
        np.testing.assert_allclose(made[row].numpy(), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(made[row], emphasized(states[row : row + 1], weights[row : row + 1])[0])


def test_without_weights_states_are_the_very_same():
    states = torch.randn(1, 5, 7)

    assert emphasized(states, None) is states


def test_weights_are_applied_in_single_precision_to_half_precision():
    states = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(2)) + 0.1
    weights = torch.ones(1, 77)
    weights[:, 3:6] = 1.3

    made = emphasized(states.bfloat16(), weights)

    assert made.dtype == torch.bfloat16
    assert torch.equal(made, emphasized(states.bfloat16().float(), weights).bfloat16())


def test_a_mean_of_which_only_rounding_is_left_is_not_restored():
    centred = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(3))
    centred -= centred.mean(dim=-1, keepdim=True)
    weights = torch.tensor([[1.0, 1.4, 1.0, 1.0, 1.0]])

    assert torch.equal(emphasized(centred, weights), centred * weights.unsqueeze(-1))
    assert not emphasized(torch.ones(1, 2, 3), torch.zeros(1, 2)).any()
