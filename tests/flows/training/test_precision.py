"""Half precisions and recomputed activations learn what float32 learns, and go on byte for byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.methods.lookup import method_named
from flows.training.module import DreamBoothModule
from flows.training.precision import checkpoint_activations
from flows.training.tensor_files import read_metadata
from storage.errors import TrainingDiverged
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, recipe, train, training_images

WANTED = {"steps": 4, "checkpoint_every": 1, "text_encoder_learning_rate": 1e-4}


class Killed(Exception):
    """The process is gone."""


def run(base: Path, folder: Path, kept: KeptCheckpoints, watch: Watch | None = None, **changes: Any) -> None:
    train(base, folder, recipe(**{**WANTED, **changes}), kept, watch)


def measured(base: Path, folder: Path, **changes: Any) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of the steps."""
    reports: list[StepReport] = []
    run(base, folder, KeptCheckpoints(folder / "kept"), Watch(on_step=reports.append), **changes)
    return [report.loss for report in reports], [report.gradient_norm for report in reports]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_killed_training_in_half_precision_ends_byte_equal(
    method: str, precision: str, tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"method": method, "precision": precision, "token_learning_rate": 0.0, "lora_alpha": 16.0}
    straight = KeptCheckpoints(tmp_path / "straight")
    run(tiny_model, tmp_path, straight, **changes)
    killed = KeptCheckpoints(tmp_path / "killed")

    def die(step: int) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        run(tiny_model, tmp_path, killed, Watch(check=die), **changes)
    assert killed.kept == [1, 2]
    run(tiny_model, tmp_path, killed, **changes)
    for step in (3, 4):
        name = f"{step}.safetensors"
        assert (killed.folder / name).read_bytes() == (straight.folder / name).read_bytes()


@pytest.mark.parametrize(("precision", "near"), [("bf16", 0.03), ("fp16", 0.005)])
def test_half_precision_has_the_losses_of_float32_within_its_digits(
    precision: str, near: float, tiny_model: Path, tmp_path: Path
) -> None:
    losses, norms = measured(tiny_model, tmp_path / "fp32")
    half_losses, half_norms = measured(tiny_model, tmp_path / "half", precision=precision)
    assert half_losses == pytest.approx(losses, rel=near)
    assert half_norms == pytest.approx(norms, rel=5 * near)
    assert half_losses != losses


def test_a_step_that_overflows_is_left_out_and_the_scale_survives_a_death(tiny_model: Path, tmp_path: Path) -> None:
    scale = 2.0**40  # far too large: the first steps overflow, and each halves it

    def begin(precision: str, device: torch.device, optimizer: Any) -> GradScaler:
        optimizer._step_supports_amp_scaling = False
        return GradScaler(device.type, init_scale=scale)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.training.module.loss_scaler", begin)
        kept = KeptCheckpoints(tmp_path / "kept")
        reports: list[StepReport] = []
        run(tiny_model, tmp_path, kept, Watch(on_step=reports.append), precision="fp16")
        assert not math.isfinite(reports[0].gradient_norm)
        assert '"scale": ' + str(scale / 2) in read_metadata(kept.folder / "1.safetensors")["scaler"]


def test_a_scale_that_only_falls_is_a_training_that_diverges(tiny_model: Path, tmp_path: Path) -> None:
    def begin(precision: str, device: torch.device, optimizer: Any) -> GradScaler:
        optimizer._step_supports_amp_scaling = False
        return GradScaler(device.type, init_scale=1.0)

    def infinite(module: DreamBoothModule, loss: torch.Tensor) -> None:
        next(iter(module.training_groups[0].parameters.values())).grad.fill_(float("inf"))  # pyright: ignore[reportOptionalMemberAccess]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.training.module.loss_scaler", begin)
        patch.setattr(DreamBoothModule, "on_after_backward", lambda module: infinite(module, torch.zeros(())))
        with pytest.raises(TrainingDiverged, match="Step 1: the gradient norm is"):
            run(tiny_model, tmp_path, KeptCheckpoints(tmp_path / "kept"), precision="fp16")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_recomputed_activations_have_the_same_gradients(method: str, components: Components, tiny_model: Path) -> None:
    wanted = recipe(method=method, token_learning_rate=0.0, text_encoder_learning_rate=1e-4, lora_alpha=16.0)
    images = training_images(components, wanted)

    def gradients(parts: Components, on: bool) -> dict[str, torch.Tensor]:
        from_scratch = method_named(method).begin(FAMILY, parts, wanted)
        module = DreamBoothModule(wanted, FAMILY, parts, from_scratch, images)
        checkpoint_activations(parts, on)
        assert parts.unet.is_gradient_checkpointing is on
        module.loss_of(module.draw(0)).total.backward()
        named = {name: one for group in from_scratch.groups for name, one in group.parameters.items()}
        return {name: one.grad.clone() for name, one in named.items() if one.grad is not None}

    kept, recomputed = gradients(components, False), gradients(loaded(tiny_model), True)
    assert kept.keys() == recomputed.keys()
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_after_a_fit_activations_are_kept_as_before(tiny_model: Path, tmp_path: Path) -> None:
    modules: list[DreamBoothModule] = []

    def note(module: DreamBoothModule) -> None:
        modules.append(module)
        assert module.components.unet.is_gradient_checkpointing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DreamBoothModule, "on_train_start", note)
        run(tiny_model, tmp_path, KeptCheckpoints(tmp_path / "kept"), gradient_checkpointing=True)
    assert not modules[0].components.unet.is_gradient_checkpointing
