"""Whether backups are made is seen before `darkroom up`, and in `darkroom status`."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.local.reports.backup_report import backup_line, running_destination
from storage.postgres.upkeep.last_backup import LastBackup

HOLD = """
import pathlib, sys
from deployments.local.state import holding
with holding(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_up_with_a_destination_and_no_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.setenv("DARKROOM_BACKUP__DESTINATION", str(tmp_path / "backups"))
    refused = CliRunner().invoke(app, ["up"])
    assert refused.exit_code == 1
    assert "backup.key is not there" in refused.output
    assert "darkroom backup key" in refused.output
    assert not (tmp_path / "data").exists()


def test_status_names_the_destination_of_the_platform_that_runs_not_of_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_BACKUP__DESTINATION", "/of/the/shell")
    environment = {**os.environ, "DARKROOM_BACKUP__DESTINATION": "/of/the/platform"}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert running_destination(tmp_path) == "/of/the/platform"
        running.communicate(b"")
    assert running_destination(tmp_path) == ""


def test_the_line_says_where_backups_go_and_how_old_the_newest_is() -> None:
    now = datetime.now(UTC)
    last = LastBackup(name="2026-11-28", place="file:///mnt", finished_at=now - timedelta(hours=9))
    assert backup_line("/mnt", last, now) == (
        "backups: every night to /mnt; the newest is 9 hours old, 2026-11-28 in file:///mnt"
    )
    later = backup_line("", last, now + timedelta(days=4))
    assert "none at night, DARKROOM_BACKUP__DESTINATION was not set" in later
    assert "the newest is 4 days old" in later
    assert backup_line("", None, now).endswith("there never was one")
