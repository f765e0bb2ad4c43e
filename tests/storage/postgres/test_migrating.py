"""The schema is brought up to date while others work: short locks, tried again; nothing half-built; no dead holder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.environment import PROJECT
from deployments.local.servers.postgres import EmbeddedPostgres
from storage.errors import DarkroomError
from storage.postgres import migrating
from storage.postgres.connection import Database
from storage.postgres.events import outbox
from storage.postgres.migrating import (
    MIGRATIONS,
    MigrationBlocked,
    MigrationRefused,
    MigrationTooSlow,
    migrate,
    read_migration,
)
from storage.records.events.events import FollowAdded
from storage.settings import PostgresSettings
from tests.conftest import fresh_database

STARTER = """
import sys; from pathlib import Path
from storage.postgres.migrating import migrate
migrate(sys.argv[1], folder=Path(sys.argv[2]), idle_seconds=float(sys.argv[3]))
"""
INDEX = "create index concurrently if not exists things_by_n on things (n);\n"
ALONE = "-- no transaction: the index is built while rows come and go.\n"


def test_the_numbers_of_migrations_are_unique_and_without_gaps() -> None:
    names = sorted(file.name for file in MIGRATIONS.glob("*.sql"))
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]


@pytest.fixture
def url(database_url: str) -> str:
    """A database with a table `things` of a thousand rows."""
    with psycopg.connect(database_url) as connection:
        connection.execute("create table things (n int not null)")
        connection.execute("insert into things select n from generate_series(1, 1000) n")
    return database_url


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with migrations of these texts, in this order."""

    def make(*texts: str) -> Path:
        for number, text in enumerate(texts, 9001):
            (tmp_path / f"{number}_test.sql").write_text(text)
        return tmp_path

    return make


@pytest.fixture
def starters() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts other processes that migrate; those left over are killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, folder: Path, idle_seconds: float = 30) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", STARTER, url, str(folder), str(idle_seconds)]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def value(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def wait_for(url: str, statement: str, seconds: float = 20) -> None:
    """Wait until a query's value is true."""
    deadline = time.monotonic() + seconds
    while not value(url, statement):
        assert time.monotonic() < deadline, statement
        time.sleep(0.05)


def test_a_lock_that_is_not_free_is_let_go_and_tried_again(
    url: str, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrating.LOCK_SECONDS <= 4
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 1)
    path = folder("alter table things add column m int;")
    with psycopg.connect(url) as reader:
        reader.execute("select count(*) from things")
        ended = threading.Timer(2.5, reader.rollback)
        ended.start()
        began = time.monotonic()
        waits: list[float] = []
        starter = threading.Thread(target=migrate, args=(url,), kwargs={"folder": path})
        starter.start()
        while starter.is_alive():  # who comes meanwhile waits for the migration's lock, and never for long
            asked = time.monotonic()
            value(url, "select count(*) from things")
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        ended.join()
    assert 2.5 <= time.monotonic() - began < 30
    assert value(url, "select count(*) from schema_migrations where name = '9001_test'") == 1
    assert max(waits) < 1.5


def test_a_migration_that_gets_no_lock_says_who_holds_it_and_leaves_nothing(
    url: str, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 1)
    path = folder("create table made (n int); alter table things add column m int;")
    with psycopg.connect(url, application_name="a long report") as reader:
        reader.execute("select count(*) from things")
        with pytest.raises(MigrationBlocked, match=r"9001_test .* process \d+ \(a long report, idle in transaction\)"):
            migrate(url, folder=path, patience_seconds=1)
    assert value(url, "select to_regclass('made') is null")
    assert migrate(url, folder=path) == ["9001_test"]


def test_a_slow_statement_is_refused_unless_the_file_says_why(url: str, folder: Callable[..., Path]) -> None:
    slow = "create table made (n int); select pg_sleep(1.5);"
    path = folder("-- statement_timeout 1s: a test may not take longer.\n" + slow)
    with pytest.raises(MigrationTooSlow, match="longer than 1s"):
        migrate(url, folder=path)
    assert value(url, "select to_regclass('made') is null")
    assert migrate(url, folder=folder("-- statement_timeout 10s: the test itself wants it.\n" + slow)) == ["9001_test"]


def test_an_index_that_was_cut_short_is_made_again(url: str, folder: Callable[..., Path]) -> None:
    path = folder(ALONE + "-- statement_timeout 1s: the first try is to be cut short.\n" + INDEX)
    with psycopg.connect(url) as writer:  # an open transaction, for which the second phase of the index waits
        writer.execute("insert into things values (0)")
        with pytest.raises(MigrationTooSlow):
            migrate(url, folder=path)
    assert value(url, "select not indisvalid from pg_index where indexrelid = 'things_by_n'::regclass")
    assert migrate(url, folder=path) == ["9001_test"]
    assert value(url, "select indisvalid from pg_index where indexrelid = 'things_by_n'::regclass")
    assert migrate(url, folder=path) == []


def test_without_a_transaction_only_what_may_be_repeated_stands(url: str, folder: Callable[..., Path]) -> None:
    for wrong in (
        "create index things_by_n on things (n);",
        "update things set n = n + 1;",
        "do $$ begin update things set n = n + 1; end $$;",
    ):
        with pytest.raises(MigrationRefused, match="may be repeated"):
            migrate(url, folder=folder(ALONE + INDEX + wrong))
    assert value(url, "select to_regclass('things_by_n') is null")


def test_batches_that_commit_go_on_where_they_were_cut_short(url: str, folder: Callable[..., Path]) -> None:
    block = """
do $$
declare gone int;
begin
    loop
        with batch as (select n from things order by n limit 100)
        delete from things using batch where things.n = batch.n;
        get diagnostics gone = row_count;
        exit when gone = 0;
        if exists (select from things where n = 501) and not exists (select from things where n = 500) {cut}
        commit;
    end loop;
end $$;
"""
    cut, whole = block.format(cut="then perform 1 / 0; end if;"), block.format(cut="then null; end if;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(url, folder=folder(ALONE + INDEX + cut))
    assert value(url, "select count(*) from things") == 600
    assert migrate(url, folder=folder(ALONE + INDEX + whole)) == ["9001_test"]
    assert value(url, "select count(*) from things") == 0


def test_starters_that_come_together_take_turns_also_around_an_index_built_concurrently(
    url: str, folder: Callable[..., Path], starters: Callable[..., subprocess.Popen[bytes]]
) -> None:
    path = folder("select pg_sleep(1);", ALONE + INDEX)
    processes = [starters(url, path) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert value(url, "select count(*) from schema_migrations where name like '9%'") == 2


def test_a_killed_starter_holds_up_nobody(
    url: str, folder: Callable[..., Path], starters: Callable[..., subprocess.Popen[bytes]]
) -> None:
    path = folder("-- statement_timeout 10min: it is killed in the middle.\nselect pg_sleep(300);")
    process = starters(url, path)
    wait_for(url, "select exists (select from pg_stat_activity where query like '%pg_sleep(300)%' and state = 'active'"
                  " and pid <> pg_backend_pid())")  # fmt: skip
    process.kill()
    began = time.monotonic()
    assert migrate(url, folder=folder("select 1;"), wait_seconds=30) == ["9001_test"]
    assert time.monotonic() - began < 10


def test_a_stopped_starter_is_put_out_and_one_that_waits_says_for_whom(
    url: str, folder: Callable[..., Path], starters: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = starters(url, folder("select pg_sleep(1);"), idle_seconds=1)
    wait_for(url, "select exists (select from pg_locks where locktype = 'advisory' and granted)")
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(MigrationBlocked, match=r"Postgres process \d+"):
        migrate(url, folder=folder("select 1;"), wait_seconds=0.5)
    assert migrate(url, folder=folder("select 1;"), wait_seconds=30) == ["9001_test"]


def test_every_migration_can_be_read_and_those_after_the_first_limits_are_limited() -> None:
    read = [read_migration(file) for file in sorted(MIGRATIONS.glob("*.sql"))]
    assert {m.statement_timeout for m in read if m.name[:4] <= "0019"} == {"30min"}


def test_no_column_is_added_whose_default_differs_from_row_to_row() -> None:
    """Postgres would rewrite the whole table with everybody kept out. The linter knows only some such functions."""
    added = re.compile(r"add column[^;,]*?\bdefault\s+(\w+)\s*\(", re.IGNORECASE)
    volatile = {
        file.name: [name for name in added.findall(file.read_text()) if name.lower() != "now"]
        for file in sorted(MIGRATIONS.glob("*.sql"))
    }
    old = {"0002_catalogue.sql": ["nextval"], "0007_changes.sql": ["pg_current_xact_id"]}
    assert {name: found for name, found in volatile.items() if found} == old


def test_a_database_of_the_first_schema_comes_to_the_newest(postgres_server: EmbeddedPostgres) -> None:
    with fresh_database(postgres_server, "template1") as url:
        assert migrate(url) == [file.stem for file in sorted(MIGRATIONS.glob("*.sql"))]
        assert value(url, "select count(*) from pg_index where not indisvalid") == 0


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("create index things_by_n on things (n);", "require-concurrent-index-creation"),
        ("alter table things add column made uuid not null default gen_random_uuid();", "adding-field-with-default"),
        ("alter table things add column m int not null;", "adding-required-field"),
        ("alter table things alter column n type bigint;", "changing-column-type"),
        ("alter table things add constraint n_is_small check (n < 9);", "constraint-missing-not-valid"),
    ],
)
def test_the_linter_refuses_what_would_lock_a_table_for_long(tmp_path: Path, statement: str, rule: str) -> None:
    file = tmp_path / "9001_test.sql"
    file.write_text(statement)
    command = [
        str(Path(sys.executable).with_name("squawk")),
        "--config",
        ".squawk.toml",
        "--reporter",
        "gcc",
        str(file),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert found.returncode != 0
    assert rule in found.stdout


@pytest.mark.soak
def test_a_million_rows_are_migrated_under_live_traffic_without_a_failure_or_a_long_wait(
    database_url: str, folder: Callable[..., Path]
) -> None:
    """Everything since the limits, once more, and a column added to the busiest table, while eight writers go on."""
    rows = int(os.environ.get("SOAK_ROWS", "1000000"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "insert into outbox (kind, subject, done_at) select 'follow.added', 'x', now() from generate_series(1, %s)",
            (rows,),
        )
        connection.execute("drop index outbox_done")
    path = folder(
        "alter table outbox add column note text;\ncreate table outbox_notes (event_id bigint not null);",
        (MIGRATIONS / "0028_ages.sql")
        .read_text()
        .replace("on activity_set_aside", "on activity_rejected"),  # as 0037 names it
    )
    ended, waits, failures = threading.Event(), list[float](), list[str]()

    def write() -> None:
        with Database(PostgresSettings(url=SecretStr(database_url))) as database:
            while not ended.is_set():
                began = time.monotonic()
                try:
                    database.run(outbox.append(FollowAdded(follower_id=UUID(int=1), followed_id=UUID(int=2))))
                    taken = database.run(outbox.claim(5))
                    database.run(outbox.done(*(row.id for row in taken)))
                except DarkroomError as error:
                    failures.append(str(error))
                waits.append(time.monotonic() - began)

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    time.sleep(1)
    before = len(waits)
    began = time.monotonic()
    ran = migrate(database_url, folder=path)
    took = time.monotonic() - began
    ended.set()
    for writer in writers:
        writer.join()
    figures = f"{rows:,} rows, {took:.1f} s, {len(waits) - before} requests meanwhile, longest {max(waits):.2f} s"
    assert (ran, failures) == (["9001_test", "9002_test"], []), figures
    assert value(database_url, "select indisvalid from pg_index where indexrelid = 'outbox_done'::regclass")
    assert len(waits) - before > 20, figures
    assert max(waits[before:]) < 1, figures
    sys.stdout.write(figures)  # pytest -s shows it
