"""The programs of Postgres: what they fail on is named, and they get nothing that is ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from flows.upkeep.backup import dumps
from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from storage.backup_settings import BackupSettings
from storage.errors import BackupFailed
from tests.flows.upkeep.backup.source import Source, say


def test_a_database_that_pg_dump_does_not_get_is_named_and_leaves_no_backup(old: Source, tmp_path: Path) -> None:
    url = old.settings.backup.mlflow_database
    gone = make_conninfo(url.get_secret_value(), dbname="gone", password="hidden")
    old.settings.backup.mlflow_database = SecretStr(gone)
    try:
        with pytest.raises(BackupFailed, match="does not exist") as raised:
            back_up_to(old.stores, str(tmp_path), say)
    finally:
        old.settings.backup.mlflow_database = url
    assert "hidden" not in str(raised.value)
    assert BackupStore(str(tmp_path)).finished() == []


def test_the_programs_of_postgres_get_no_credentials_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "pg_dump").chmod(0o700)
    for name in ("PREFECT_API_AUTH_STRING", "AWS_SECRET_ACCESS_KEY", "DARKROOM_API__SIGNING_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "a secret")
    written: list[bytes] = []
    dumps.dump(BackupSettings(postgres_programs=str(tmp_path)), "postgresql://u:mine@/d", written.append)
    environment = b"".join(written).decode()
    assert "PGPASSWORD=mine" in environment
    assert "a secret" not in environment
