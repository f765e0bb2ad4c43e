"""Our own class around PostgreSQL 18."""

from __future__ import annotations

import os
import pwd
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from deployments.local.errors import PlatformError
from deployments.local.servers.postgres import ACCOUNT_OF_ROOT, EmbeddedPostgres, RunAs, account_to_run_as


def test_the_server_has_what_prefect_and_search_ask_for_and_no_tcp_port(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.url("postgres")) as connection:
        (version,) = connection.execute("show server_version").fetchone() or ("",)
        (addresses,) = connection.execute("show listen_addresses").fetchone() or ("unknown",)
        names = {row[0] for row in connection.execute("select name from pg_available_extensions")}

    assert version.startswith("18.")
    assert addresses == ""
    assert {"pg_trgm", "vector", "unaccent"} <= names


def test_the_data_folder_is_closed_to_other_accounts(postgres_server: EmbeddedPostgres) -> None:
    assert postgres_server.folder.stat().st_mode & 0o077 == 0


def test_databases_are_created_once(postgres_server: EmbeddedPostgres) -> None:
    postgres_server.create_databases(["twice"])
    postgres_server.create_databases(["twice"])

    with psycopg.connect(postgres_server.url("twice")) as connection:
        assert connection.execute("select current_database()").fetchone() == ("twice",)


def test_data_outlives_a_kill_of_the_server(short_folder: Path) -> None:
    server = EmbeddedPostgres(short_folder / "killed")
    with server.serving():
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("create table facts as select 42 as fact")
        os.kill(int((server.folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    with server.serving(), psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("select fact from facts").fetchone() == (42,)


def test_a_folder_whose_socket_path_is_too_long_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="DARKROOM_DATA_FOLDER"):
        EmbeddedPostgres(tmp_path / ("long" * 30)).prepare()


def test_data_of_another_major_version_is_refused(short_folder: Path) -> None:
    folder = short_folder / "old"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("15\n")

    with pytest.raises(PlatformError, match="PostgreSQL 15"):
        EmbeddedPostgres(folder).prepare()


def test_a_death_in_the_middle_of_the_first_start_leaves_nothing_that_is_taken_for_data(short_folder: Path) -> None:
    half_made = short_folder / "half.new"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")

    server = EmbeddedPostgres(short_folder / "half", durable=False)
    with server.serving():
        assert server.responds()


def test_servers_started_by_root_at_once_make_its_account_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    useradd = tmp_path / "useradd"
    useradd.write_text(f"#!/bin/sh\nsleep 0.2\necho account >> {made}\n")
    useradd.chmod(0o700)
    account = SimpleNamespace(pw_name=ACCOUNT_OF_ROOT, pw_uid=990, pw_gid=991)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwall", lambda: [account] if made.exists() else [])
    monkeypatch.setattr(pwd, "getpwnam", lambda _: account)

    with ThreadPoolExecutor(3) as threads:
        accounts = [threads.submit(account_to_run_as) for _ in range(3)]

    assert [run_as.result() for run_as in accounts] == [RunAs(990, 991, ())] * 3
    assert made.read_text().splitlines() == ["account"]
