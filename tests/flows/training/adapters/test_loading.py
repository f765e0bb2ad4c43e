"""A published adapter beside its base again; one of another base is refused before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components
from flows.training.adapters import loading
from flows.training.adapters.files import DIFFUSERS_FILE, KOHYA_FILE
from flows.training.adapters.layers import adapter_tensors, inject, remove
from flows.training.adapters.loading import load_adapter
from flows.training.tensor_files import read_metadata, read_tensors, write_tensors
from storage.errors import WeightsRefused
from tests.flows.training.adapters.adapters import drawn, lora_recipe, trained_adapter, with_components
from tests.flows.training.tiny import FAMILY


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Components, Path]:
    """A trained DoRA with convolutions, and its file in diffusers' form."""
    wanted = lora_recipe(lora_dora=True, lora_conv=True, lora_targets="all-linear")
    components, files = trained_adapter(tiny_model, tmp_path_factory.mktemp("written"), wanted)
    return components, files.folder[DIFFUSERS_FILE]


def test_a_loaded_adapter_draws_what_the_trained_one_drew(written: tuple[Components, Path], tiny_model: Path) -> None:
    trained, file = written
    again = FAMILY.load(tiny_model)
    load_adapter(again, file)
    # Not bit for bit: training lays the UNet out by channels, which another kernel reads.
    one, other = (drawn(with_components(tiny_model, components)) for components in (again, trained))
    assert np.abs(one - other).max() < 1e-5
    assert not [name for name, one in again.unet.named_parameters() if one.requires_grad]


def test_an_adapter_of_another_family_is_refused_and_changes_nothing(
    written: tuple[Components, Path], components: Components, tmp_path: Path
) -> None:
    _, file = written
    tensors, facts = read_tensors(file), read_metadata(file)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    wider = {**tensors, f"{layer}.lora_A.weight": tensors[f"{layer}.lora_A.weight"].repeat(1, 48)}
    second = {**tensors, "text_encoder_2.text_projection.lora_A.weight": tensors[f"{layer}.lora_A.weight"]}
    for foreign, why in ((wider, "is .16, 16. here, and 16 x .768. there"), (second, "no layer text_encoder_2")):
        write_tensors(tmp_path / "foreign.safetensors", foreign, facts)
        with pytest.raises(WeightsRefused, match=f"another family or base: .*{why}") as refused:
            load_adapter(components, tmp_path / "foreign.safetensors")
        assert refused.value.reason == "family"
        assert adapter_tensors(components) == {}


def test_a_file_that_is_no_adapter_of_ours_is_refused(
    written: tuple[Components, Path], components: Components, tiny_model: Path
) -> None:
    _, file = written
    for other in (file.with_name(KOHYA_FILE), tiny_model / "unet" / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(WeightsRefused, match="is no adapter in diffusers' form"):
            load_adapter(components, other)


UP, LENGTHS = ".lora_B.weight", ".lora_magnitude_vector"


def last_of(tensors: dict[str, Tensor], ending: str) -> str:
    """The last tensor of a kind: whatever is put in before it would be in already."""
    return max(name for name in tensors if ending in name)


def without_lengths(tensors: dict[str, Tensor]) -> None:
    del tensors[last_of(tensors, LENGTHS)]


def with_fewer_lengths(tensors: dict[str, Tensor]) -> None:
    tensors[last_of(tensors, LENGTHS)] = torch.ones(1)


def with_a_narrow_up(tensors: dict[str, Tensor]) -> None:
    name = last_of(tensors, UP)
    tensors[name] = tensors[name][:, :1].contiguous()


def without_an_up(tensors: dict[str, Tensor]) -> None:
    del tensors[last_of(tensors, UP)]


def with_a_bias(tensors: dict[str, Tensor]) -> None:
    tensors[last_of(tensors, UP).replace(".weight", ".bias")] = torch.ones(1)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without_lengths, "it has no unet.*lora_magnitude_vector"),
        (with_fewer_lengths, r"lora_magnitude_vector is \[1\] and not \[.*\d\]"),
        (with_a_narrow_up, r"lora_B.weight is \[\d+, 1.*\] and not \[\d+, 4.*\]"),
        (without_an_up, "it has no unet.*lora_B.weight"),
        (with_a_bias, "nothing here reads its unet.*lora_B.bias"),
    ],
)
def test_a_damaged_adapter_is_refused_and_changes_nothing(
    written: tuple[Components, Path],
    components: Components,
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], None],
    why: str,
) -> None:
    _, file = written
    tensors = dict(read_tensors(file))
    damage(tensors)
    write_tensors(tmp_path / "damaged.safetensors", tensors, read_metadata(file))
    before = parts_of(components)
    with pytest.raises(WeightsRefused, match=f"no whole adapter: .*{why}"):
        load_adapter(components, tmp_path / "damaged.safetensors")
    assert parts_of(components) == before


def test_an_adapter_of_two_alphas_or_none_is_refused(
    written: tuple[Components, Path], components: Components, tmp_path: Path
) -> None:
    _, file = written
    for said in ('{"unet.lora_alpha": 4, "text_encoder.lora_alpha": 8}', "{}", "[", '{"unet.lora_alpha": [4]}'):
        facts = {**read_metadata(file), "lora_adapter_metadata": said}
        write_tensors(tmp_path / "odd.safetensors", read_tensors(file), facts)
        with pytest.raises(WeightsRefused, match="one rank, one alpha"):
            load_adapter(components, tmp_path / "odd.safetensors")


def test_an_adapter_that_finds_no_memory_leaves_the_model_as_it_was(
    written: tuple[Components, Path], components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = written
    before = parts_of(components)

    def full(module: nn.Module, *rest: Any) -> None:
        inject(module, *rest)
        if module is components.unet:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading, "inject", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_adapter(components, file)
    assert parts_of(components) == before


def test_an_adapter_that_is_removed_leaves_the_others(written: tuple[Components, Path], tiny_model: Path) -> None:
    _, file = written
    model = FAMILY.load(tiny_model)
    before = parts_of(model)
    load_adapter(model, file, "one")
    beside_one = parts_of(model)
    load_adapter(model, file, "other")
    for module in model.modules.values():
        remove(module, "other")
    assert parts_of(model) == beside_one
    for module in model.modules.values():
        remove(module, "one")
    assert parts_of(model) == before


def parts_of(components: Components) -> list[tuple[str, type[nn.Module], int]]:
    """Every part of a model, down to its layers: the very ones."""
    return [
        (f"{name}.{inside}", type(part), id(part))
        for name, module in components.modules.items()
        for inside, part in module.named_modules()
    ]
