"""A tiny random model in the starter's folder layout, made once for the session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.starter.networks import write_tiny_model
from tests.flows.training.tiny import loaded


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; tests only read it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return folder


@pytest.fixture
def components(tiny_model: Path) -> Components:
    """The tiny model as it is loaded: a test may train it."""
    torch.set_num_threads(1)
    return loaded(tiny_model)
