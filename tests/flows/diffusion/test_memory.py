"""The peak of a piece of work is of that piece alone; what is equal in two models is held once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from flows.diffusion.memory import (
    free_bytes,
    freed_memory_kept,
    image_layout,
    lay_out_weights,
    peak_bytes,
    return_freed,
    share_equal,
    start_peak,
)
from flows.starter.networks import write_tiny_model
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train

CPU = torch.device("cpu")
MIB = 1024 * 1024


def test_a_peak_is_what_the_work_needed_and_ends_with_it() -> None:
    start_peak(CPU)
    before = peak_bytes(CPU)
    torch.ones(200 * MIB, dtype=torch.uint8)
    after = peak_bytes(CPU)
    assert 190 * MIB < after - before < 260 * MIB
    start_peak(CPU)
    assert peak_bytes(CPU) < after - 150 * MIB


def test_what_was_dropped_between_what_stays_goes_back_to_the_system() -> None:
    # The C library maps blocks of more than that until one of them was freed, and gives those back by itself.
    del (larger := [torch.ones(31 * MIB, dtype=torch.uint8)])[:]
    mixed = [torch.ones(MIB, dtype=torch.uint8) for _ in range(400)]
    kept = mixed[::40]
    start_peak(CPU)
    whole = peak_bytes(CPU)
    del mixed
    return_freed(CPU)
    start_peak(CPU)
    assert peak_bytes(CPU) < whole - 300 * MIB
    assert all(int(one.sum()) == MIB for one in kept)
    assert not larger


def test_a_unet_that_is_laid_out_keeps_no_part_of_its_file_mapped(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base", seed=0)
    unet: Any = FAMILY.load(tmp_path / "base").unet
    # Half-precision files are copied as they are loaded: one of the type that is trained is mapped.
    unet.save_pretrained(tmp_path / "base" / "unet")
    unet = FAMILY.load(tmp_path / "base").unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    mapped = str(tmp_path / "base" / "unet")
    assert mapped in Path("/proc/self/maps").read_text()
    lay_out_weights(unet)
    assert mapped not in Path("/proc/self/maps").read_text()
    after = unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert after["conv_in.weight"].is_contiguous()
    assert image_layout(torch.device("cuda")) is torch.channels_last


def test_a_module_that_is_laid_out_is_never_twice_in_memory(tmp_path: Path) -> None:
    file, names = tmp_path / "file.safetensors", [f"{number}.weight" for number in range(16)]
    save_file({name: torch.rand(1024, 1024) for name in names}, file)
    # As diffusers loads a folder: each tensor by itself.
    with safe_open(file, "pt") as opened:
        weights = [nn.Parameter(opened.get_tensor(name)) for name in names]
    module = nn.ParameterList(weights)
    sums = [weight.sum().item() for weight in weights]  # all of the file is read
    start_peak(CPU)
    before = peak_bytes(CPU)
    lay_out_weights(module)
    assert peak_bytes(CPU) - before < size_of(module) / 2
    assert [weight.sum().item() for weight in module] == sums


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


@pytest.mark.parametrize(("method", "shared"), [("lora", 1.0), ("full", 0.0)])
def test_a_base_beside_a_fine_tune_holds_what_was_changed_and_predicts_what_it_did(
    method: str, shared: float, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "base", seed=0)
    wanted = recipe(
        method=method, steps=4, learning_rate=0.01, token_learning_rate=0.0, checkpoint_every=9, lora_alpha=16.0
    )
    tuned, _ = train(tmp_path / "base", tmp_path, wanted, KeptCheckpoints(tmp_path / "kept"))
    base = FAMILY.load(tmp_path / "base")
    noisy, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    words = FAMILY.encode_prompts(base, ["a photo of a mug"])
    with torch.no_grad():
        before = FAMILY.predict(base, noisy, timesteps, words)
        saved = share_equal(base.unet, tuned.unet)
        after = FAMILY.predict(base, noisy, timesteps, words)
        of_the_tuned = FAMILY.predict(tuned, noisy, timesteps, words)
    assert saved == pytest.approx(shared * size_of(base.unet))
    # Only the order of sums differs, since the weights lie in memory as the fine-tune's; what was learned is more.
    rounding, learned = ((one - after).abs().max() for one in (before, of_the_tuned))
    assert rounding < 1e-5
    assert learned > 10 * rounding


def test_of_a_card_what_torch_holds_unused_is_free_and_the_peak_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"mem_get_info": (100, 1000), "memory_reserved": 50, "memory_allocated": 20, "max_memory_allocated": 70}
    for name, answer in asked.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    assert free_bytes(torch.device("cuda")) == 130
    assert peak_bytes(torch.device("cuda")) == 70


def test_large_blocks_that_are_freed_are_taken_again_without_clearing_them_once_more() -> None:
    def seconds_in_the_system() -> float:
        began = os.times().system
        for _ in range(20):
            torch.ones(40 << 18)  # 40 MiB, more than glibc ever keeps by itself
        return os.times().system - began

    given_back = seconds_in_the_system()
    with freed_memory_kept(torch.device("cpu")):
        seconds_in_the_system()
        kept = seconds_in_the_system()
    assert kept < given_back / 2
