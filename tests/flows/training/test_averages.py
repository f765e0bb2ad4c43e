"""Averaged weights: drawn and exported with, kept in checkpoints, and never in the way of the weights that train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.methods.protocol import parameters_of
from storage.errors import InvalidCheckpoint
from tests.flows.training.optimizers import small
from tests.flows.training.tiny import KeptCheckpoints, fit_tiny, recipe, train_and_export


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_the_average_equals_that_of_diffusers(decay: float) -> None:
    training = small.begin("adamw", ema_decay=decay)
    theirs = EMAModel(training.model.parameters(), decay=decay)
    for _ in range(5):
        training.train(1)
        theirs.step(training.model.parameters())
    names = [name for name, _ in training.model.named_parameters()]
    with training.averaged.in_place():
        ours = training.weights()
    for name, average in zip(names, theirs.shadow_params, strict=True):
        assert torch.equal(ours[name], average), name


def test_a_resumed_average_has_every_byte_of_one_that_ran_through(tmp_path: Path) -> None:
    whole = small.begin("adamw", ema_decay=0.999)
    whole.train(6)
    first = small.begin("adamw", ema_decay=0.999)
    first.train(3)
    first.write(tmp_path / "3")
    resumed = small.begin("adamw", ema_decay=0.999)
    resumed.read(tmp_path / "3")
    resumed.train(3)
    assert whole.write(tmp_path / "whole") == resumed.write(tmp_path / "resumed")
    plain = small.begin("adamw")
    with pytest.raises(InvalidCheckpoint, match="average/"):
        plain.read(tmp_path / "3")


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.9), ("adamw_schedule_free", 0.0), ("adamw", 0.0)])
def test_the_weights_that_train_come_back_bit_by_bit(name: str, decay: float, tmp_path: Path) -> None:
    training, undisturbed = small.begin(name, ema_decay=decay), small.begin(name, ema_decay=decay)
    for _ in range(3):
        training.train(2)
        undisturbed.train(2)
        before = training.weights()
        with pytest.raises(RuntimeError, match="a store is gone"), training.averaged.in_place():
            changed = [key for key, weight in training.weights().items() if not torch.equal(weight, before[key])]
            assert bool(changed) == (decay > 0 or name == "adamw_schedule_free")
            raise RuntimeError("a store is gone")
        assert training.write(tmp_path / "one") == undisturbed.write(tmp_path / "other")


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.9), ("adamw_schedule_free", 0.0)])
def test_what_is_left_at_the_end_is_what_was_drawn_with(name: str, decay: float) -> None:
    training = small.begin(name, ema_decay=decay)
    training.train(4)
    with training.averaged.in_place():
        drawn = training.weights()
    training.averaged.settle()
    training.averaged.settle()
    assert all(torch.equal(weight, drawn[key]) for key, weight in training.weights().items())
    assert training.averaged.averages == {}


def test_what_stopped_may_rest_on_another_device() -> None:
    """As a text encoder does from `textEncoderSteps` on; `meta` stands for the device that it left."""
    training = small.begin("adamw", ema_decay=0.9)
    training.train(2)
    averages, before = training.averaged.averages, training.averaged.averages["unet.weight"].clone()
    for name, parameter in parameters_of(training.groups[1:2]).items():
        parameter.requires_grad_(False)
        training.averaged.settle_some([name])
        averages[name] = averages[name].to("meta")
    training.averaged.update(3)
    assert not torch.equal(averages["unet.weight"], before)


SETTINGS = {
    "ema": {"ema_decay": 0.9},
    "schedule_free": {"optimizer": "adamw_schedule_free"},
    "8bit": {"optimizer": "adamw_8bit"},
}


@pytest.mark.parametrize("which", SETTINGS)
def test_a_fit_that_was_stopped_exports_the_bytes_of_one_that_drew_all_its_samples(
    which: str, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = recipe(**SETTINGS[which], steps=4, sample_every=2, text_encoder_learning_rate=1e-3, prior_loss_weight=0.0)
    kept = KeptCheckpoints(tmp_path / "kept")
    sampled: list[int] = []
    whole = train_and_export(tiny_model, tmp_path / "whole", wanted, kept, Watch(on_sample=sampled.append))
    assert sampled == [2, 4]
    for step in (2, 3, 4):
        alone = KeptCheckpoints(tmp_path / f"after-{step}")
        file = kept.folder / f"{step}.safetensors"
        alone.keep(step, file, small.sha256(file))
        resumed = train_and_export(tiny_model, tmp_path / f"resumed-{step}", wanted, alone)
        assert resumed.hashes.blake3 == whole.hashes.blake3, step


def test_samples_and_the_end_of_a_fit_see_the_averaged_weights(components: Components, tmp_path: Path) -> None:
    wanted = recipe(optimizer="adamw_schedule_free", steps=3, sample_every=3, token_learning_rate=0.0)
    seen: list[torch.Tensor] = []
    weight = components.unet.get_parameter("conv_in.weight")
    fit_tiny(
        components,
        wanted,
        tmp_path,
        Watch(
            on_step=lambda report: seen.append(weight.detach().clone()),
            on_sample=lambda step: seen.append(weight.detach().clone()),
        ),
    )
    trained, drawn = seen[-2:]
    assert not torch.equal(trained, drawn)
    assert torch.equal(weight, drawn)
