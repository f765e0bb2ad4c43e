"""Tiny models for the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.starter.networks import write_tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Four of them, by the numbers of their versions."""
    torch.set_num_threads(1)
    folders = {number: tmp_path_factory.mktemp("models") / f"tiny-{number}" for number in range(1, 5)}
    for number, folder in folders.items():
        write_tiny_model(folder, seed=number)
    return folders
