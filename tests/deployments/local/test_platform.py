"""`darkroom up` where it cannot start; where it does: tests/faults/test_whole_platform.py."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.deployments.platform import Platform


def test_a_taken_port_is_named_with_its_setting_and_holder_before_anything_starts(tmp_path: Path) -> None:
    other = Platform(tmp_path)
    with socket.create_server(("127.0.0.1", other.settings.mlflow.port)):
        refused = other.cli("up")

    assert refused.returncode == 1
    assert f"port {other.settings.mlflow.port} (mlflow) is taken by process {os.getpid()}" in refused.stderr
    assert "DARKROOM_MLFLOW__PORT" in refused.stderr
    assert not (other.folder / "postgres").exists()
