"""darkroom sql."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from psycopg.conninfo import make_conninfo


def test_a_query_runs_on_the_database_of_the_settings(database_url: str) -> None:
    environment = {**os.environ, "DARKROOM_POSTGRES__URL": database_url}
    command = [sys.executable, "-m", "deployments.cli", "sql", "select 40 + 2 as response, count(*) from jobs"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert "42" in asked.stdout


def test_a_platform_that_is_stopped_is_said_how_to_start_beside_the_words_of_psql(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DARKROOM_POSTGRES__URL"}
    environment["DARKROOM_DATA_FOLDER"] = str(tmp_path)
    command = [sys.executable, "-m", "deployments.cli", "sql", "select 1"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert asked.returncode != 0
    assert "Start it with: darkroom up --detach" in asked.stderr
    assert "psql: error:" in asked.stderr


def test_the_password_is_on_no_command_line(database_url: str) -> None:
    url = make_conninfo(database_url, password="a-secret-of-the-url")
    environment = {**os.environ, "DARKROOM_POSTGRES__URL": url}
    command = [sys.executable, "-m", "deployments.cli", "sql", "select pg_sleep(30)"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as asking:
        process, deadline = psutil.Process(asking.pid), time.monotonic() + 30
        while Path((process.cmdline() or [""])[0]).name != "psql" and time.monotonic() < deadline:
            time.sleep(0.05)
        line, known = process.cmdline(), process.environ()
        asking.kill()
    assert Path(line[0]).name == "psql"
    assert "a-secret-of-the-url" not in " ".join(line)
    assert known["PGPASSWORD"] == "a-secret-of-the-url"
