"""What a fit leaves behind: parts where they were, no gradients, no optimizer state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.accelerators import CPUAccelerator

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.checkpointing.host_copies import HostCopies
from flows.training.fit import check_released
from flows.training.methods.full import FullTraining
from flows.training.module import DreamBoothModule
from storage.errors import CancellationRequested, TrainingDiverged
from tests.flows.training.tiny import fit_tiny, recipe


def fitted(components: Components, folder: Path, watch: Watch | None = None, **changes: Any) -> frozenset[str]:
    wanted = recipe(steps=2, checkpoint_every=2, **changes)
    return fit_tiny(components, wanted, folder, watch)


def test_nothing_of_a_fit_but_the_weights_stays_in_memory(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[DreamBoothModule] = []

    def note(module: DreamBoothModule) -> None:
        modules.append(module)

    monkeypatch.setattr(DreamBoothModule, "on_train_start", note)
    fitted(components, tmp_path, text_encoder_learning_rate=1e-4)
    check_released(components)
    assert not modules[0].optimizer.state
    parameter = next(components.unet.parameters())
    parameter.grad = parameter.detach().clone()
    with pytest.raises(AssertionError, match=r"The fit left 1 gradients, the first of unet\."):
        check_released(components)


def test_no_gradient_is_kept_while_images_are_drawn(components: Components, tmp_path: Path) -> None:
    between: list[str] = []

    def look(what: str) -> Callable[[object], None]:
        def at(_: object) -> None:
            check_released(components)
            between.append(what)

        return at

    watch = Watch(on_sample=look("sample"), on_validation=look("validation"), on_checkpoint=look("checkpoint"))
    fitted(components, tmp_path, watch, sample_every=1, validation_every=1)
    assert between == ["validation", "validation", "sample", "checkpoint", "validation", "sample"]


def test_a_fit_moves_nothing_to_the_hosts_memory(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own end moves all that is left: weights, gradients, the optimizer's state."""
    seen: list[str] = []
    modules: list[DreamBoothModule] = []
    copies: list[HostCopies] = []
    true_start, true_copies = DreamBoothModule.on_train_start, HostCopies.__init__

    def started(module: DreamBoothModule) -> None:
        modules.append(module)
        true_start(module)

    def made(kept: HostCopies, *arguments: Any) -> None:
        copies.append(kept)
        true_copies(kept, *arguments)

    def end(accelerator: CPUAccelerator) -> None:
        check_released(components)
        assert not modules[0].optimizer.state
        assert copies[0].size == 0
        seen.append("the end")

    monkeypatch.setattr(DreamBoothModule, "on_train_start", started)
    monkeypatch.setattr(HostCopies, "__init__", made)
    monkeypatch.setattr(CPUAccelerator, "teardown", end)
    monkeypatch.setattr(LightningModule, "cpu", lambda module: seen.append("Lightning to the CPU"))
    fitted(components, tmp_path, method="lora", lora_rank=1, token_learning_rate=0.0)
    assert seen == ["the end"]


def test_a_step_that_fails_leaves_its_memory_to_the_end_and_its_error_to_the_caller(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A card that a step has filled has no room for a part that comes back beside the step's gradients."""
    modules: list[DreamBoothModule] = []
    order: list[str] = []
    true_finish = FullTraining.finish

    def fail(module: DreamBoothModule, *_: Any, **given: Any) -> None:
        modules.append(module)
        if len(modules) == 2:
            assert module.optimizer.state
            assert any(one.grad is not None for one in components.unet.parameters())
            raise TrainingDiverged("the second step fails")

    def move_back(parts: Components, device: Any) -> Components:
        check_released(components)
        assert not modules[0].optimizer.state
        order.append("every part is to come back")
        raise torch.OutOfMemoryError("CUDA out of memory")

    def finish(training: FullTraining) -> frozenset[str]:
        order.append("the rows are put into the table")
        return true_finish(training)

    monkeypatch.setattr(DreamBoothModule, "configure_gradient_clipping", fail)
    monkeypatch.setattr(Components, "to", move_back)
    monkeypatch.setattr(FullTraining, "finish", finish)
    with pytest.raises(TrainingDiverged, match="the second step fails"):
        fitted(components, tmp_path)
    assert order == ["every part is to come back", "the rows are put into the table"]
    assert "a fit that ended with TrainingDiverged: its end failed" in caplog.text


@pytest.mark.parametrize("ends", [None, CancellationRequested])
def test_a_method_ends_where_it_began(
    components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: type[Exception] | None
) -> None:
    """Its rows of the embedding table are on the card, and a text encoder that rests has its table in the host's."""
    order: list[str] = []
    true_to, true_finish = Components.to, FullTraining.finish

    def to(parts: Components, device: Any) -> Components:
        order.append("every part is back")
        return true_to(parts, device)

    def finish(training: FullTraining) -> frozenset[str]:
        order.append("the rows are put into the table")
        return true_finish(training)

    def check(step: int) -> None:
        if ends is not None:
            raise ends("asked for")

    monkeypatch.setattr(Components, "to", to)
    monkeypatch.setattr(FullTraining, "finish", finish)
    with nullcontext() if ends is None else pytest.raises(ends):
        fitted(components, tmp_path, text_encoder_steps=1, watch=Watch(check=check))
    assert order == ["every part is back", "the rows are put into the table"]
