"""Parts of a model are where the work is, or it does not begin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.diffusion.devices import check_devices, prepare_torch
from flows.starter.networks import write_tiny_model
from storage.errors import DevicesDiffer
from tests.flows.training.tiny import FAMILY


def test_a_phase_does_not_begin_with_parts_on_another_device(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny", seed=0)
    components = FAMILY.load(tmp_path / "tiny")
    check_devices(components, components.device, "evaluate")
    components.vae.to("meta")
    with pytest.raises(DevicesDiffer, match=r"evaluate begins with \d+ tensors off cpu: vae\..* is on meta"):
        check_devices(components, components.device, "evaluate")


def test_kernels_are_strictly_deterministic() -> None:
    assert prepare_torch(torch.get_num_threads()).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    with pytest.raises(ValueError, match="claim its job"):
        prepare_torch(0)
