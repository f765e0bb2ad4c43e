"""The script for machines with a GPU: right on a CPU, and silent about nothing where there is none."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.gpu.__main__ import run_checks
from tests.gpu.trainings import trains_elsewhere
from tests.gpu.wheels import PACKAGES, normalised, pinned
from tests.warm import start_warm

QUICK = ("two runs and a killed one are equal: sd1 lora", "evaluates after the fit: sdxl full", "out of memory")
"""One of each kind; the rest is for the soak."""


def run_script(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)


def test_a_machine_without_a_gpu_says_so_and_fails_nothing() -> None:
    done = run_script(CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["GPU: none", "skipped: this machine has no GPU that torch can use"]


def test_checks_hold_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The script's own work in this process, whose fork server has torch: a new script imports it twice.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    start_warm()
    status = run_checks(argparse.Namespace(device="cpu", only=QUICK, jobs=3, seconds=480.0))
    written = capsys.readouterr()
    assert status == 0, written.out + written.err
    *each, last = written.out.splitlines()
    said = {name: line.split(" ", 1)[0] for line in each for name in QUICK if name in line}
    assert said == {name: "skipped" if name == "out of memory" else "ok" for name in QUICK}
    assert last.startswith("3 of 3 in ")


@pytest.mark.soak
@pytest.mark.timeout(1600)
def test_every_check_holds_on_a_cpu() -> None:
    done = run_script("--device", "cpu", "--jobs", "2", "--seconds", "1400")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_check_that_does_not_exist_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    asked = argparse.Namespace(only=[QUICK[0], "no such check"])
    assert run_checks(asked) == 1
    assert capsys.readouterr().out == "no check is called so: no such check\n"


def test_what_trains_on_another_device_is_named() -> None:
    """That Lightning leaves a fit's weights on the card shows there alone; what looks for them is looked at here."""
    part = nn.Linear(2, 1)
    part.bias.requires_grad_(False)
    assert trains_elsewhere({"unet": part}, torch.device("cuda")) == ["unet.weight"]
    assert trains_elsewhere({"unet": part}, torch.device("cpu")) == []


def test_every_wheel_has_a_version() -> None:
    assert [name for name in PACKAGES if normalised(name) not in pinned()] == []
