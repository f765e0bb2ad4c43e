"""A text encoder that stops to train is finished: what is drawn with, encoded and exported is one and the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.module import DreamBoothModule
from tests.flows.training.optimizers.small import sha256
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, fit_tiny, recipe, train_and_export

STOP, STEPS = 2, 4
AROUND = (STOP, STOP + 1)
"""Steps after which `make test` resumes: what is kept changes there. Before and at the end every optimizer resumes in
optimizers/test_states.py, and here in the soak."""
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "ema": {"ema_decay": 0.9},
    "schedule_free": {"optimizer": "adamw_schedule_free"},
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0, "text_encoder_learning_rate": 1.0},
    "8bit": {"optimizer": "adamw_8bit"},
}


def wanted(which: str, **changes: Any) -> Any:
    settings = {"text_encoder_learning_rate": 1e-3, "sample_every": 1, **SETTINGS[which], **changes}
    return recipe(steps=STEPS, text_encoder_steps=STOP, token_learning_rate=0.0, prior_loss_weight=0.0, **settings)


@pytest.mark.parametrize("which", ["ema", "schedule_free"])
def test_prompts_samples_and_the_end_are_of_the_averaged_encoder(
    which: str, components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wanted(which)
    modules: list[DreamBoothModule] = []
    drawn: dict[int, Tensor] = {}

    def note(report: StepReport) -> None:
        assert report.step <= STOP or components.text_encoder.training is False

    true_start = DreamBoothModule.on_train_start
    monkeypatch.setattr(DreamBoothModule, "on_train_start", lambda one: (modules.append(one), true_start(one))[1])

    def encoded() -> Tensor:
        with torch.no_grad():
            return FAMILY.encode_prompts(components, [asked.instance_prompt]).tensors["encoder_hidden_states"].clone()

    def sample(step: int) -> None:
        drawn[step] = encoded()

    fit_tiny(components, asked, tmp_path, Watch(on_step=note, on_sample=sample))
    cached = modules[0].frozen_prompts[asked.instance_prompt].tensors["encoder_hidden_states"]
    assert not torch.equal(drawn[1], drawn[STOP]), "it did not train before"
    for step in range(STOP, STEPS + 1):
        assert torch.equal(drawn[step], cached), step
    assert torch.equal(encoded(), cached)


@pytest.mark.parametrize("steps", [AROUND, pytest.param((1, *AROUND, STEPS), marks=pytest.mark.soak)])
@pytest.mark.parametrize("which", SETTINGS)
def test_a_training_resumed_around_the_stop_ends_with_the_same_bytes(
    which: str, steps: tuple[int, ...], tiny_model: Path, tmp_path: Path
) -> None:
    asked = wanted(which, sample_every=9)
    kept = KeptCheckpoints(tmp_path / "kept")
    whole = train_and_export(tiny_model, tmp_path / "whole", asked, kept)
    for step in steps:
        alone = KeptCheckpoints(tmp_path / f"after-{step}")
        file = kept.folder / f"{step}.safetensors"
        alone.keep(step, file, sha256(file))
        resumed = train_and_export(tiny_model, tmp_path / f"resumed-{step}", asked, alone)
        assert resumed.hashes.blake3 == whole.hashes.blake3, step
        last = f"{STEPS}.safetensors"
        assert (alone.folder / last).read_bytes() == (kept.folder / last).read_bytes(), step
    # What no step reads any more is in no checkpoint, and takes no memory.
    assert (kept.folder / f"{STOP}.safetensors").stat().st_size > (
        kept.folder / f"{STOP + 1}.safetensors"
    ).stat().st_size
