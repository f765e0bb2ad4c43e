"""Frozen weights in 16 bits compute what torch's own layers compute with weights that were rounded to them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from flows.diffusion.families.protocol import Components
from flows.diffusion.half_weights import DTYPES, HalfConv2d, HalfLinear, hold
from flows.diffusion.memory import bytes_of_parameters, share_equal
from flows.diffusion.sampler import draw_images
from flows.starter.networks import write_tiny_model
from storage.blobs.model_sizes import sizes_of_folder
from storage.errors import WeightsRefused
from storage.records.jobs.costs.memory import estimate_memory
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 5), (2, 3, 6)),
    "linear without bias": (nn.Linear(6, 5, bias=False), (2, 6)),
    "convolution": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8)),
    "convolution that halves": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8)),
    "convolution in groups, without bias": (nn.Conv2d(4, 6, 1, groups=2, bias=False), (1, 4, 4, 4)),
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return folder


def rounded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with float32 weights that `dtype` has, too."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype).float()
    return module


def computing(precision: str) -> AbstractContextManager[Any]:
    return nullcontext() if precision == "float32" else torch.autocast("cpu", dtype=DTYPES[precision])


def result_and_gradient(layer: nn.Module, given: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    given = given.clone().requires_grad_(True)
    with computing(precision):
        made = layer(given)
        made.float().square().sum().backward()
    assert given.grad is not None
    return made.detach(), given.grad


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("held", ["bfloat16", "float16"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_layer_computes_what_torchs_own_does_with_rounded_weights(name: str, held: str, precision: str) -> None:
    layer, shape = LAYERS[name]
    dtype, given = DTYPES[held], torch.randn(shape, generator=torch.Generator().manual_seed(1))
    own = hold(deepcopy(layer).requires_grad_(False).to(dtype), dtype)
    assert {parameter.dtype for parameter in own.parameters()} == {dtype}
    expected = result_and_gradient(rounded(deepcopy(layer).requires_grad_(False), dtype), given, precision)
    for ours, theirs in zip(result_and_gradient(own, given, precision), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "convolution"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_backward_pass_keeps_no_weight_in_more_than_16_bits(name: str, precision: str) -> None:
    layer, shape = LAYERS[name]
    own, kept = hold(deepcopy(layer).requires_grad_(False), torch.bfloat16), list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    given = torch.randn(shape, requires_grad=True)
    with computing(precision), saved_tensors_hooks(pack, lambda tensor: tensor):
        own(given)
    weight: Any = own.weight
    # torch's own linear layer keeps it turned.
    [found] = [tensor for tensor in kept if tensor.numel() == weight.numel()]
    assert found.data_ptr() == weight.data_ptr(), "the layer's own, and no copy of it"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
# torch's own tracing makes an object of a Function, which torch itself deprecates.
@pytest.mark.filterwarnings("ignore:.*Function.*should not be instantiated:DeprecationWarning")
def test_compiled_layers_compute_the_same(precision: str) -> None:
    layers = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Linear(8, 5)).requires_grad_(False)
    own = hold(layers.to(torch.bfloat16), torch.bfloat16)
    compiled: Any = torch.compile(own, backend="aot_eager", fullgraph=True)
    given = torch.randn(1, 4, 8, 8)
    expected = result_and_gradient(own, given, precision)
    for ours, theirs in zip(result_and_gradient(compiled, given, precision), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-2 if precision == "bfloat16" else 1e-6, atol=1e-6)


class Odd(nn.Linear):
    """A layer that computes in its own way."""


def test_only_known_layers_are_held_and_what_is_too_large_is_refused() -> None:
    reflecting = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), Odd(2, 2), nn.Conv2d(2, 2, 1), reflecting)
    hold(module.to(torch.bfloat16), torch.bfloat16)
    assert [type(one) for one in module] == [HalfLinear, nn.LayerNorm, Odd, HalfConv2d, nn.Conv2d]
    held, whole = torch.bfloat16, torch.float32
    assert [next(one.parameters()).dtype for one in module] == [held, whole, whole, held, whole]
    large = nn.Linear(2, 2)
    large.weight.data[0, 0] = 1e5
    with pytest.raises(WeightsRefused, match=r"unet has weights that are too large for fp16\. Ask for frozenPrecision"):
        hold(large.to(torch.float16), torch.float16, "unet")


@pytest.mark.parametrize("held", ["bfloat16", "float16"])
def test_a_folder_that_is_held_in_16_bits_draws_as_one_that_was_rounded(tiny_model: Path, held: str) -> None:
    torch.set_num_threads(1)
    ours, theirs = FAMILY.load(tiny_model, dtype=held), FAMILY.load(tiny_model)
    for part in ("unet", "text_encoder"):
        rounded(theirs.modules[part], DTYPES[held])
    drawn = [pixels(parts) for parts in (ours, theirs, FAMILY.load(tiny_model))]
    assert drawn[0] == drawn[1]
    # The tiny model's own files are in fp16.
    assert (drawn[1] != drawn[2]) == (held == "bfloat16")
    assert {one.dtype for one in ours.vae.parameters()} == {torch.float32}
    norms = {name for name, one in ours.unet.named_parameters() if one.dtype == torch.float32}
    assert norms
    assert all("norm" in name for name in norms)


def pixels(parts: Components) -> list[bytes]:
    sampler = SamplerSettings(steps=2, guidance_scale=3.0)
    return [image.tobytes() for image in draw_images(FAMILY, parts, ["a mug", "a car"], [0, 1], sampler)]


def test_weights_in_16_bits_take_what_the_estimate_says_and_are_shared(tiny_model: Path) -> None:
    held = lora_recipe(frozen_precision="bf16")
    sizes = sizes_of_folder(tiny_model)
    for wanted in (held, lora_recipe()):
        parts = FAMILY.load(tiny_model, dtype=wanted.held_in)
        weights = sum(bytes_of_parameters(module) for module in parts.modules.values())
        assert estimate_memory(sizes, wanted).weights == weights
    one, other = (FAMILY.load(tiny_model, dtype=held.held_in).unet for _ in range(2))
    assert share_equal(one, other) == bytes_of_parameters(other)
