"""Each optimizer beside its library's own, and gone on from a checkpoint to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_optimizer
import torch
from bitsandbytes.optim.adamw import AdamW8bit
from bitsandbytes.optim.lion import Lion8bit

from flows.training.checkpoints import checkpoint_step
from flows.training.tensor_files import read_metadata
from storage.errors import InvalidCheckpoint
from storage.records.jobs.choices import TrainingOptimizer
from tests.flows.training.optimizers import small
from tests.warm import run_warm

THEIRS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True),
    "adamw_8bit": lambda groups: AdamW8bit(groups, betas=(0.9, 0.999), eps=1e-8),
    "lion": lambda groups: pytorch_optimizer.Lion(groups, betas=(0.9, 0.99)),
    "lion_8bit": lambda groups: Lion8bit(groups, betas=(0.9, 0.99)),
    "prodigy": lambda groups: pytorch_optimizer.Prodigy(groups, bias_correction=True, safeguard_warmup=True),
    "adamw_schedule_free": lambda groups: pytorch_optimizer.ScheduleFreeAdamW(groups, eps=1e-8),
    "adafactor": lambda groups: pytorch_optimizer.AdaFactor(
        groups, betas=(None, 0.999), scale_parameter=False, relative_step=False
    ),
}
NAMES = [name.value for name in TrainingOptimizer]


def test_every_optimizer_is_compared() -> None:
    assert set(THEIRS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_equal_those_of_the_library(name: str) -> None:
    ours, model = small.begin(name), small.Layers()
    if name.endswith("_8bit"):
        model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    theirs = THEIRS[name](
        [
            {"params": list(group.parameters.values()), "lr": group.learning_rate, "weight_decay": group.weight_decay}
            for group in small.groups_of(model, ours.groups[0].learning_rate)
        ]
    )
    for step in range(3):
        small.gradients(model, step)
        for settings in theirs.param_groups:
            settings["lr"] = ours.groups[0].learning_rate * (step + 1) / 4
        theirs.step()
    before = ours.weights()
    ours.train(3)
    for key, weight in model.named_parameters():
        assert torch.equal(ours.weights()[key], weight.detach()), key
        assert not torch.equal(ours.weights()[key], before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_has_every_byte_of_one_that_ran_through(name: str, tmp_path: Path) -> None:
    whole = small.begin(name)
    whole.train(6)
    first = small.begin(name)
    first.train(3)
    first.write(tmp_path / "3")
    resumed = small.begin(name)
    resumed.read(tmp_path / "3")
    assert resumed.step == checkpoint_step(tmp_path / "3", "a recipe") == 3
    resumed.write(tmp_path / "again")
    assert small.sha256(tmp_path / "again") == small.sha256(tmp_path / "3")
    resumed.train(3)
    for key, weight in whole.weights().items():
        assert torch.equal(resumed.weights()[key], weight), key
    assert whole.write(tmp_path / "whole") == resumed.write(tmp_path / "resumed") == small.sha256(tmp_path / "whole")
    assert layouts(whole) == layouts(resumed)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_the_layout_in_memory_as_it_was(name: str) -> None:
    training = small.begin(name)
    before = [one.stride() for one in training.model.parameters()]
    training.train(1)
    assert [one.stride() for one in training.model.parameters()] == before
    for parameter in training.model.parameters():
        for key, value in training.optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                assert value.stride() == parameter.stride(), key


def layouts(training: small.SmallTraining) -> list[dict[str, tuple[int, ...]]]:
    """How each parameter and its state lie in memory: elsewhere a sum over them rounds otherwise."""
    found: list[dict[str, tuple[int, ...]]] = []
    for parameter in training.model.parameters():
        tensors = {"": parameter} | training.optimizer.state[parameter]
        found.append({key: one.stride() for key, one in tensors.items() if isinstance(one, torch.Tensor)})
    return found


def test_a_checkpoint_before_the_first_step_resumes_too(tmp_path: Path) -> None:
    for name in ("adamw", "prodigy", "adamw_schedule_free"):
        begun = small.begin(name)
        begun.write(tmp_path / name)
        resumed = small.begin(name)
        resumed.read(tmp_path / name)
        begun.train(2)
        resumed.train(2)
        assert begun.write(tmp_path / "one") == resumed.write(tmp_path / "other")


def test_numbers_of_groups_are_kept(tmp_path: Path) -> None:
    training = small.begin("prodigy")
    training.train(26)
    training.write(tmp_path / "file")
    kept = json.loads(read_metadata(tmp_path / "file")["optimizer"])["groups"]
    assert [one["d"] for one in kept.values()] == [training.optimizer.param_groups[0]["d"]] * 3
    assert kept["0"]["d"] > kept["0"]["d0"], "it has found no rate yet"
    assert kept["0"]["step"] == 27
    fresh = small.begin("prodigy")
    fresh.read(tmp_path / "file")
    for ours, theirs in zip(fresh.optimizer.param_groups, training.optimizer.param_groups, strict=True):
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    training.train(3)
    fresh.train(3)
    assert fresh.write(tmp_path / "fresh") == training.write(tmp_path / "whole")


def test_a_nested_state_is_kept_in_its_depth(tmp_path: Path) -> None:
    training = small.begin("adamw")
    training.train(1)
    weight = training.model.projection.weight
    nested = {"codes": torch.arange(5, dtype=torch.uint8), "inner": {"scale": torch.tensor(2.5)}, "blocks": 7}
    training.optimizer.state[weight]["quantised"] = nested
    training.write(tmp_path / "file")
    fresh = small.begin("adamw")
    fresh.read(tmp_path / "file")
    read = fresh.optimizer.state[fresh.model.projection.weight]["quantised"]
    assert torch.equal(read["codes"], nested["codes"])
    assert read["inner"]["scale"] == 2.5
    assert read["blocks"] == 7


def test_a_state_of_another_parameter_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    training = small.begin("adamw")
    training.train(1)
    training.write(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content.replace(b"exp_avg/unet.bias", b"exp_avg/unet.bogs"))
    fresh = small.begin("adamw")
    before = fresh.weights()
    with pytest.raises(InvalidCheckpoint, match="does not have"):
        fresh.read(tmp_path / "file")
    assert not fresh.optimizer.state
    assert all(torch.equal(weight, before[key]) for key, weight in fresh.weights().items())


def test_what_json_does_not_hold_is_refused_by_its_name(tmp_path: Path) -> None:
    training = small.begin("adamw")
    training.train(1)
    training.optimizer.state[training.model.rows]["odd"] = object()
    with pytest.raises(TypeError, match="odd of object"):
        training.write(tmp_path / "file")


NAMED = 'LIBRARIES = ("bitsandbytes", "pytorch_optimizer")'
FORGETTING = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in {*LIBRARIES, "flows", "storage"}]:
    del sys.modules[name]
"""
"""In a process that has libraries already: ours are imported again, and with them what they ask for."""
IMPORTED = """
import sys
from flows.training import dreambooth_steps
from flows.training.optimizers.lookup import optimizer_named
optimizer_named("adamw")
print([name for name in LIBRARIES if name in sys.modules])
"""


def imported_afresh() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", NAMED + IMPORTED], capture_output=True, text=True, check=False)


def imported_again() -> subprocess.CompletedProcess[str]:
    """In a process that is forked from one with torch, whose import takes most of the time."""
    return run_warm(NAMED + FORGETTING + IMPORTED, environment=os.environ)


@pytest.mark.parametrize("imported", [imported_again, pytest.param(imported_afresh, marks=pytest.mark.soak)])
def test_a_training_with_adamw_loads_no_other_optimizers_library(
    imported: Callable[[], subprocess.CompletedProcess[str]],
) -> None:
    ran = imported()
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().splitlines()[-1] == "[]"
