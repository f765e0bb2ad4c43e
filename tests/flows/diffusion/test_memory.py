"""The peak of a piece of work is of that piece alone; what is equal in two models is held once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flows.diffusion.memory import peak_bytes, share_equal, start_peak
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
