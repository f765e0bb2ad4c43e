"""What nothing needs for a while leaves the card, and is there when images are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flows.diffusion.families.protocol import Components
from flows.diffusion.resting import HOST, RestingParts
from flows.starter.networks import write_tiny_model
from flows.training.callbacks import StepReport, Watch
from flows.training.module import DreamBoothModule
from storage.errors import DevicesDiffer
from tests.flows.training.tiny import FAMILY, fit_tiny, recipe

CARD = torch.device("meta")
"""Stands for a card: another device than the host's, which every machine has."""


def test_parts_leave_come_back_for_a_block_and_leave_again() -> None:
    parts = {"vae": nn.Linear(2, 2), "text_encoder": nn.Linear(2, 2)}
    resting = RestingParts(HOST)
    resting.leave({"vae": parts["vae"]})
    resting.leave(parts)
    assert resting.names == ("vae", "text_encoder")
    with pytest.raises(RuntimeError, match="in the block"), resting.back():
        raise RuntimeError("in the block")
    assert {one.device for part in parts.values() for one in part.parameters()} == {HOST}


def test_a_part_that_cannot_be_moved_is_named() -> None:
    stuck = nn.Linear(2, 2, device=CARD)
    stuck.to = lambda device: stuck  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DevicesDiffer, match=r"vae is on \['meta'\] after it was moved to cpu"):
        RestingParts(CARD).leave({"vae": stuck})


class Moves:
    """Notes where each part is asked to go. On a CPU nothing else shows it."""

    def __init__(self, components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noted: list[str] = []
        names = {id(module): name for name, module in components.modules.items()}
        true_move = RestingParts._move

        def move(resting: RestingParts, device: torch.device) -> None:
            where = "host" if device is HOST else "card"
            self.noted.append(f"{'+'.join(resting.names)} to {where}")
            assert set(resting.names) <= set(names.values())
            true_move(resting, device)

        monkeypatch.setattr(RestingParts, "_move", move)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"token_learning_rate": 0.0},
            ["vae to host", "vae+text_encoder to host", "step 1", "step 2", "vae+text_encoder to card", "sample"],
        ),
        (
            {"text_encoder_learning_rate": 1e-4},
            ["vae to host", "step 1", "step 2", "vae to card", "sample", "vae to host", "step 3"],
        ),
        (
            {"text_encoder_learning_rate": 1e-4, "text_encoder_steps": 1, "caption_dropout": 0.5},
            ["vae to host", "step 1", "vae+text_encoder to host", "step 2", "vae+text_encoder to card", "sample"],
        ),
    ],
)
def test_vae_and_text_encoders_rest_once_what_they_make_is_cached(
    changes: dict[str, Any], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path / "base", seed=0)
    components, wanted = FAMILY.load(tmp_path / "base"), recipe(steps=3, sample_every=2, checkpoint_every=9, **changes)
    moves, modules = Moves(components, monkeypatch), list[DreamBoothModule]()
    true_start = DreamBoothModule.on_train_start
    monkeypatch.setattr(DreamBoothModule, "on_train_start", lambda one: (modules.append(one), true_start(one))[1])

    true_leave, encoded = RestingParts.leave, list[set[str]]()

    def leave(resting: RestingParts, parts: Mapping[str, nn.Module]) -> None:
        if "text_encoder" in parts:
            encoded.append(set(modules[0].frozen_prompts))
        true_leave(resting, parts)

    monkeypatch.setattr(RestingParts, "leave", leave)

    def stepped(report: StepReport) -> None:
        moves.noted.append(f"step {report.step}")

    fit_tiny(components, wanted, tmp_path, Watch(on_step=stepped, on_sample=lambda step: moves.noted.append("sample")))
    assert moves.noted[: len(expected)] == expected
    if not modules[0].method_run.trains_text:
        empty = {""} if wanted.caption_dropout else set[str]()
        # Before the text encoder leaves, not one by one from the host's memory.
        assert encoded == [{wanted.instance_prompt, wanted.class_prompt} | empty]
