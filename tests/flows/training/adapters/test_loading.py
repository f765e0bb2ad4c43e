"""A published adapter beside its base again; one of another base is refused before anything changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.diffusion.families.protocol import Components
from flows.training.adapters.files import DIFFUSERS_FILE, KOHYA_FILE
from flows.training.adapters.layers import adapter_tensors
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
