"""The training loop: a rate that rises, stays and falls, and a resumed run that equals an unbroken one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from flows.starter.schedules import Schedule
from flows.starter.steps import train

SCHEDULE = Schedule(steps=12, learning_rate=1e-2, warmup=3, save_every=5)


def fit(checkpoint: Path, stop_at: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        inputs = torch.randn(8, 4, generator=generator)
        return (layer(inputs) - inputs.flip(1)).square().mean()

    return train({"layer": layer}, loss_of, SCHEDULE, seed=1, checkpoint=checkpoint, stop_at=stop_at)


def test_rate_rises_stays_and_falls() -> None:
    rates = [Schedule(steps=100, learning_rate=1.0, warmup=10, falling_share=0.2).rate(step) for step in range(100)]

    assert rates[:10] == sorted(rates[:10])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_resumed_run_equals_unbroken_one(tmp_path: Path) -> None:
    unbroken = fit(tmp_path / "unbroken.safetensors")

    fit(tmp_path / "broken.safetensors", stop_at=7)
    resumed = fit(tmp_path / "broken.safetensors")

    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    assert not torch.equal(unbroken["layer.weight"], fit(tmp_path / "short.safetensors", stop_at=7)["layer.weight"])


def test_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    done = fit(tmp_path / "done.safetensors")
    written = (tmp_path / "done.safetensors").stat().st_mtime_ns

    again = fit(tmp_path / "done.safetensors")

    assert all(torch.equal(done[key], again[key]) for key in done)
    assert (tmp_path / "done.safetensors").stat().st_mtime_ns == written
