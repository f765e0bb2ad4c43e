"""darkroom status, where `darkroom up` runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app

SERVERS = {
    "POSTGRES__URL": "postgresql://darkroom@postgres:5432/darkroom",
    "REDIS__URL": "redis://valkey:6379/2",
    "PREFECT__API_URL": "http://prefect:4200/api",
    "MLFLOW__URL": "http://mlflow:5000",
    "API__PUBLIC_URL": "https://darkroom.example.org",
}


def status() -> tuple[int, str]:
    """The command's exit code, and what it said."""
    done = CliRunner().invoke(app, ["status"])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("embedded", [None, "POSTGRES__URL", "REDIS__URL", "PREFECT__API_URL", "MLFLOW__URL"])
def test_up_is_advised_only_where_it_would_run_a_store(
    embedded: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    for name, value in SERVERS.items():
        if name != embedded:
            monkeypatch.setenv(f"DARKROOM_{name}", value)

    code, said = status()

    assert code == 1
    assert ("darkroom up" in said.removeprefix("`darkroom up`")) is (embedded is not None), said
    assert ("https://darkroom.example.org/health" in said) is (embedded is None), said
