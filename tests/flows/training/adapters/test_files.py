"""An adapter's files, read by diffusers' own loader, beside what we trained."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components
from flows.training.adapters.files import DIFFUSERS_FILE, KOHYA_FILE, adapter_facts, export_adapter
from flows.training.adapters.layers import NAME
from flows.training.exports.single_files import legacy_hash
from flows.training.tensor_files import payload_sha256, read_metadata, read_tensors
from flows.training.version_files import VersionFiles
from storage.blobs.families import check_model_file
from storage.errors import WeightsRefused
from storage.records.catalog.catalog import Checked
from storage.records.catalog.vocabulary import FileType, ModelType
from tests.flows.training.adapters.adapters import drawn, lora_recipe, pipeline_of, trained_adapter, with_components
from tests.flows.training.tiny import FAMILY, loaded

FORMS: dict[str, dict[str, Any]] = {
    "attention": {},
    "feed-forward": {"lora_targets": "attention-feed-forward"},
    "kohya's layers": {"lora_targets": "transformer"},
    "all, with convolutions": {"lora_targets": "all-linear", "lora_conv": True},
}


def image_with(base: Path, file: Path) -> np.ndarray[Any, Any]:
    pipeline = pipeline_of(base)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    return drawn(pipeline)


@pytest.mark.parametrize("form", FORMS)
def test_diffusers_draws_the_same_with_either_file(tiny_model: Path, tmp_path: Path, form: str) -> None:
    components, files = trained_adapter(tiny_model, tmp_path, lora_recipe(**FORMS[form]))
    ours = drawn(with_components(tiny_model, components))
    assert np.abs(ours - drawn(pipeline_of(tiny_model))).max() > 0.01, "the adapter changes what is drawn"
    for file in (files.weights, files.folder[DIFFUSERS_FILE]):
        assert np.abs(image_with(tiny_model, file) - ours).max() < 1e-4, file.name


def test_diffusers_reads_dora_from_its_own_form(tiny_model: Path, tmp_path: Path) -> None:
    wanted = lora_recipe(lora_dora=True, lora_conv=True, lora_targets="transformer")
    components, files = trained_adapter(tiny_model, tmp_path, wanted)
    ours = drawn(with_components(tiny_model, components))
    assert np.abs(image_with(tiny_model, files.folder[DIFFUSERS_FILE]) - ours).max() < 1e-4


@pytest.mark.parametrize("dora", [False, True])
def test_base_and_adapter_equal_the_fused_weights(tiny_model: Path, tmp_path: Path, dora: bool) -> None:
    """Fused from kohya's file by the formulas of the papers, as its readers do."""
    wanted = lora_recipe(lora_dora=dora, lora_conv=True, lora_targets="transformer")
    components, files = trained_adapter(tiny_model, tmp_path, wanted)
    ours = drawn(with_components(tiny_model, components))
    fused = loaded(tiny_model)
    layers = fuse(fused, read_tensors(files.weights))
    assert layers == len([name for name, _ in components.unet.named_modules() if name.endswith(f"lora_A.{NAME}")]) + 6
    assert np.abs(drawn(with_components(tiny_model, fused)) - ours).max() < 1e-5


def fuse(components: Components, tensors: dict[str, Tensor]) -> int:
    """Add a kohya file to the weights; the number of layers that it changed."""
    parts: dict[str, nn.Module] = {}
    for prefix, module in (("lora_unet", components.unet), ("lora_te_text_model", components.text_encoder)):
        parts |= {f"{prefix}_{name.replace('.', '_')}": part for name, part in module.named_modules()}
    names = sorted({name.partition(".")[0] for name in tensors})
    for name in names:
        weight = parts[name].weight
        assert isinstance(weight, nn.Parameter)
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        product = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        changed = weight.detach() + float(tensors[f"{name}.alpha"]) / down.shape[0] * product
        if f"{name}.dora_scale" in tensors:
            length = changed.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
            changed = tensors[f"{name}.dora_scale"] * changed / length
        with torch.no_grad():
            weight.copy_(changed)
    return len(names)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> VersionFiles:
    """The files of a plain adapter."""
    return trained_adapter(tiny_model, tmp_path_factory.mktemp("written"), lora_recipe(steps=1))[1]


def test_both_files_say_what_they_are(written: VersionFiles) -> None:
    for file in (written.weights, written.folder[DIFFUSERS_FILE]):
        facts = read_metadata(file)
        said = {name: facts[name] for name in ("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_v2")}
        assert said == {
            "ss_network_module": "networks.lora",
            "ss_network_dim": "4",
            "ss_network_alpha": "10.0",
            "ss_v2": "False",
        }
        assert facts["ss_base_model_version"] == "sd_v1"
        assert facts["modelspec.sai_model_spec"] == "1.0.1"
        assert facts["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert facts["sshs_model_hash"] == payload_sha256(file)
        assert facts["sshs_legacy_hash"] == "e3b0c442", "a file below 1 MiB has nothing there"
    assert written.hashes.auto_v3 == payload_sha256(written.weights)[:12].upper()


def test_tools_are_told_how_the_network_was_made() -> None:
    def network(**changes: Any) -> dict[str, str]:
        facts = adapter_facts(FAMILY, lora_recipe(**changes), "5" * 64, {})
        return {name.removeprefix("ss_network_"): said for name, said in facts.items() if name.startswith("ss_network")}

    assert network(lora_dropout=0.25) == {
        "module": "networks.lora",
        "dim": "4",
        "alpha": "10.0",
        "dropout": "0.25",
        "args": "{}",
    }
    assert network(lora_conv=True)["args"] == '{"conv_alpha": "10.0", "conv_dim": "4"}'
    dora = network(lora_dora=True)
    assert (dora["module"], dora["args"]) == ("lycoris.kohya", '{"algo": "locon", "dora_wd": "True"}')


def test_the_legacy_hash_is_of_64_kib_at_1_mib(tmp_path: Path) -> None:
    file = tmp_path / "large.safetensors"
    file.write_bytes(b"a" * 0x100000 + b"b" * 0x10000 + b"c")
    assert legacy_hash(file) == "a0a24a08"


def test_an_alpha_that_is_not_the_rank_stands_in_both(written: VersionFiles) -> None:
    kohya = read_tensors(written.weights)
    assert {float(tensor) for name, tensor in kohya.items() if name.endswith(".alpha")} == {10.0}
    said = json.loads(read_metadata(written.folder[DIFFUSERS_FILE])["lora_adapter_metadata"])
    assert (said["unet.r"], said["unet.lora_alpha"], said["text_encoder.lora_alpha"]) == (4, 10.0, 10.0)


def test_the_catalogue_takes_both_as_adapters(written: VersionFiles) -> None:
    """As of another family: the tiny model's text vectors are shorter than Stable Diffusion 1's."""
    for file in (written.weights, written.folder[DIFFUSERS_FILE]):
        found = check_model_file(file, "other", ModelType.LORA, FileType.MODEL)
        assert (found.checked, found.fp) == (Checked.STRUCTURE, "fp32")
        with safe_open(str(file), "pt") as opened:
            assert len(opened.keys()) == len(found.facts.tensors)


def test_equal_recipes_write_equal_bytes(written: VersionFiles, tiny_model: Path, tmp_path: Path) -> None:
    _, again = trained_adapter(tiny_model, tmp_path, lora_recipe(steps=1))
    assert (written.weights_name, again.weights.read_bytes()) == (KOHYA_FILE, written.weights.read_bytes())
    assert again.folder[DIFFUSERS_FILE].read_bytes() == written.folder[DIFFUSERS_FILE].read_bytes()


@pytest.mark.parametrize(("dtype", "fits"), [("fp16", False), ("bf16", True), ("fp32", True)])
def test_a_number_too_large_for_the_element_type_is_refused_by_name(
    dtype: str, fits: bool, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = lora_recipe(steps=1, export_dtype=dtype)
    components, _ = trained_adapter(tiny_model, tmp_path, lora_recipe(steps=1))
    name, tensor = next((key, one) for key, one in components.unet.named_parameters() if ".lora_B." in key)
    with torch.no_grad():
        tensor[0, 0] = 70_000.0
    words = r"lora_B.*too large for torch\.float16\..*bf16"
    with nullcontext() if fits else pytest.raises(WeightsRefused, match=words):
        made = export_adapter(FAMILY, components, wanted, wanted.fingerprint(), tmp_path / "again")
        for file in (made.weights, made.folder[DIFFUSERS_FILE]):
            written = {str(one.dtype) for key, one in read_tensors(file).items() if not key.endswith(".alpha")}
            assert written == {"torch.bfloat16" if dtype == "bf16" else "torch.float32"}
    assert ".lora_B." in name
