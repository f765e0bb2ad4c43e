"""darkroom status, where `darkroom up` runs nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from deployments.cli import app
from storage.postgres.connection import Database
from storage.postgres.upkeep import last_backup
from storage.postgres.upkeep.last_backup import LastBackup
from storage.settings import PostgresSettings

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
    assert "accounts and backups are not known: the database does not respond" in said, said


def test_storage_and_the_last_backup_are_shown_where_every_store_is_elsewhere(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("DARKROOM_BACKUP__DESTINATION", "/backups/darkroom")
    monkeypatch.setenv("DARKROOM_QUOTAS__FREE_SPACE_BYTES", str(2**60))
    for name, value in {**SERVERS, "POSTGRES__URL": database_url}.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    with Database(PostgresSettings(url=SecretStr(database_url))) as database:
        last = LastBackup(name="2026-11-28", place="file:///backups", finished_at=datetime.now(UTC))
        database.run(last_backup.finished(last))

    code, said = status()

    assert code == 1
    assert "free here: " in said
    assert "must stay free where the API is" in said
    assert "if the API is here, it refuses uploads and new jobs" in said
    assert "backups: every night to /backups/darkroom; the newest is 0 hours old, 2026-11-28" in said, said
