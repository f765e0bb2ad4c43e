"""What Postgres refuses comes by its own name, met for real: who waits, who runs again, who does neither."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres, account_to_run_as
from flows.runs.retries import passes_by_waiting, run_with_retries
from storage.backoff import retried
from storage.errors import (
    Deadlock,
    DiskFull,
    LockTimeout,
    PostgresUnavailable,
    SerializationFailure,
    StatementTimeout,
    StoreFailure,
    StoreUnavailable,
)
from storage.postgres.connection import AsyncDatabase, Database, Query, Script
from storage.settings import PostgresSettings, Settings
from storage.stores import open_stores

Transaction = Callable[[], Script[None]]

MAKE = "create table pairs as select id, 0 as touched from generate_series(1, 2) as id"
TOUCH = "update pairs set touched = touched + 1 where id = %(id)s"


def statement(text: str, **parameters: object) -> Query[int]:
    return Query(text, parameters, len)


@pytest.fixture
def quick(database_url: str) -> Iterator[Database]:
    """A database whose statements may neither run nor wait for long."""
    settings = PostgresSettings(url=SecretStr(database_url), statement_timeout_seconds=0.5, lock_timeout_seconds=0.2)
    with Database(settings) as opened:
        opened.run(statement(MAKE))
        yield opened


def touched(database: Database) -> list[int]:
    return database.run(
        Query("select touched from pairs order by id", {}, lambda rows: [row["touched"] for row in rows])
    )


class Crossing:
    """Two transactions that take the same two rows the other way round, each when the other has its first."""

    def __init__(self) -> None:
        self._both_have_one = threading.Barrier(2)

    def transaction(self, first: int, second: int) -> Transaction:
        """The maker of one of the two. Run again, it waits for nobody."""
        met: list[None] = []

        def script() -> Script[None]:
            yield from statement("set local deadlock_timeout = '50ms'")
            yield from statement(TOUCH, id=first)
            if not met:
                met.append(None)
                self._both_have_one.wait(10)
            yield from statement(TOUCH, id=second)

        return script


def test_a_deadlock_is_named_and_undoes_one_of_two(database: Database) -> None:
    database.run(statement(MAKE))
    crossing, met = Crossing(), list[Exception]()

    def run(script: Script[None]) -> None:
        try:
            database.run(script)
        except StoreFailure as error:
            met.append(error)

    threads = [
        threading.Thread(target=run, args=(crossing.transaction(first, second)(),))
        for first, second in ((1, 2), (2, 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [error] = met
    assert isinstance(error, Deadlock)
    assert passes_by_waiting(error)
    assert touched(database) == [1, 1]


def test_a_transaction_whose_maker_is_known_is_run_again_after_a_deadlock(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.run(statement(MAKE))
    crossing = Crossing()
    with caplog.at_level(logging.WARNING, "darkroom.postgres"):
        other = threading.Thread(target=database.run, args=(crossing.transaction(1, 2),))
        other.start()
        database.run(crossing.transaction(2, 1))
        other.join()
    assert touched(database) == [2, 2]
    assert dict(database.reruns.counts) == {"deadlock": 1}
    assert [record.getMessage() for record in caplog.records] == ["deadlock: the transaction is run again, 1 of 3"]


def test_so_is_one_of_the_api(database: Database, database_url: str) -> None:
    database.run(statement(MAKE))
    crossing = Crossing()

    async def run_both() -> dict[str, int]:
        opened = AsyncDatabase(PostgresSettings(url=SecretStr(database_url)))
        await opened.open()
        other = asyncio.create_task(asyncio.to_thread(database.run, crossing.transaction(1, 2)))
        met: list[None] = []

        async def meet() -> None:
            # The barrier blocks the loop for as long as the other transaction, in a thread, needs to get there.
            await opened.run(crossing.transaction(2, 1))
            met.append(None)

        await asyncio.gather(other, meet())
        await opened.close()
        return dict(opened.reruns.counts + database.reruns.counts)

    assert asyncio.run(run_both()) == {"deadlock": 1}
    assert touched(database) == [2, 2]


def test_a_conflict_that_stays_is_named_after_some_runs(database: Database, database_url: str) -> None:
    database.run(statement(MAKE))
    runs: list[None] = []

    def conflicting() -> Script[None]:
        runs.append(None)
        yield from statement("set transaction isolation level repeatable read")
        yield from statement("select touched from pairs")
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("update pairs set touched = touched + 1 where id = 1")
        yield from statement(TOUCH, id=1)

    with pytest.raises(SerializationFailure, match="nothing was saved"):
        database.run(conflicting)
    assert len(runs) == 4
    assert touched(database) == [4, 0]
    assert database.reruns.counts == {"serialization_failure": 3}


def test_a_lock_that_is_held_is_named_and_waited_for(quick: Database, caplog: pytest.LogCaptureFixture) -> None:
    with quick.connect() as holder:
        with holder.transaction():
            holder.execute(TOUCH, {"id": 1})
            with pytest.raises(LockTimeout, match=r"held what this one needs for over 0\.2 s"):
                quick.run(statement(TOUCH, id=1))
            waiting = threading.Thread(
                target=retried,
                args=(lambda: quick.run(statement(TOUCH, id=1)), StoreUnavailable),
                kwargs={"patience_seconds": 20},
            )
            waiting.start()
            waiting.join(0.5)
            assert waiting.is_alive()
        waiting.join(20)
    assert touched(quick) == [2, 0]
    assert any("lock_timeout: Another transaction held" in record.getMessage() for record in caplog.records)


def test_a_statement_that_takes_too_long_is_named_and_not_tried_again(quick: Database) -> None:
    runs: list[None] = []

    def slow() -> int:
        runs.append(None)
        return quick.run(statement("select pg_sleep(30)"))

    with pytest.raises(StatementTimeout, match=r"the limit is 0\.5 s") as caught:
        retried(slow, StoreUnavailable, patience_seconds=20)
    assert len(runs) == 1
    assert not passes_by_waiting(caught.value)


def test_a_query_that_fills_the_disk_is_named_and_not_tried_again(database: Database) -> None:
    runs: list[None] = []

    def large() -> Script[int]:
        runs.append(None)
        yield from statement("set local work_mem = '64kB'")
        yield from statement("set local temp_file_limit = '64kB'")
        return (yield from statement("select count(*) from (select n from generate_series(1, 99999) n order by -n) s"))

    with pytest.raises(DiskFull, match=r"no room left \(53400\)") as caught:
        retried(lambda: database.run(large), StoreUnavailable, patience_seconds=20)
    assert len(runs) == 1
    assert not passes_by_waiting(caught.value)


@pytest.fixture
def small_disk(database_url: str) -> Iterator[Path]:
    """A folder of 4 MiB for the server of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="dr-small-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system needs root: run this test as root, or in a container")
    run_as = account_to_run_as()
    if run_as.user is not None and run_as.group is not None:
        os.chown(folder, run_as.user, run_as.group)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_is_named_loses_nothing_and_mends_itself(
    small_disk: Path, database: Database, database_url: str
) -> None:
    space = f"small_{os.getpid()}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"create tablespace {space} location '{small_disk}'".encode())
    try:
        database.run(statement(f"create table notes (id int, words text) tablespace {space}"))
        fill = "insert into notes select n, repeat('x', 1000) from generate_series(1, 1000) n"
        filler = small_disk / "filler"
        filler.write_bytes(bytes(2 * 1024 * 1024))
        with pytest.raises(DiskFull, match=r"no room left \(53100\); nothing was saved") as caught:
            for _ in range(10):
                database.run(statement(fill))
        assert caught.value.code == "disk_full"
        kept = database.run(statement("select id from notes"))
        assert kept % 1000 == 0, "a transaction was half-written"
        filler.unlink()
        database.run(statement(fill))
        assert database.run(statement("select id from notes")) == kept + 1000
    finally:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("drop table if exists notes")
            owner.execute(f"drop tablespace {space}".encode())


def test_a_connection_that_is_cut_or_refused_is_named(
    database: Database, short_folder: Path, database_url: str
) -> None:
    with pytest.raises(PostgresUnavailable, match="AdminShutdown 57P01") as caught:
        database.run(statement("select pg_terminate_backend(pg_backend_pid())"))
    assert passes_by_waiting(caught.value)
    with EmbeddedPostgres(short_folder / "stopped", durable=False).serving() as server:
        stopped = Database(PostgresSettings(url=SecretStr(server.url("postgres"))))
        assert stopped.run(statement("select 1")) == 1
    with contextlib.closing(stopped), pytest.raises(PostgresUnavailable, match="OperationalError"):
        stopped.connect()


def test_flows_wait_for_a_lock_but_not_for_room(database_url: str, tmp_path: Path) -> None:
    settings = Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr(database_url), lock_timeout_seconds=0.1, statement_timeout_seconds=0.3),
    )
    with open_stores(settings) as stores:
        stores.database.run(statement(MAKE))
        with stores.database.connect() as holder, holder.transaction():
            holder.execute(TOUCH, {"id": 2})
            patient = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"patience_seconds": 0.5})})
            with open_stores(patient) as hasty, pytest.raises(LockTimeout):
                run_with_retries(hasty, lambda: statement(TOUCH, id=2))
        with pytest.raises(StatementTimeout):
            run_with_retries(stores, lambda: statement("select pg_sleep(9)"))


def test_a_fault_of_ours_is_not_called_an_outage(database: Database) -> None:
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        database.run(statement("select currval(pg_get_serial_sequence('outbox', 'id'))"))
