"""Postgres, spoken by scripts that do no I/O of their own.

A repository function returns a `Query` (one named statement) or a `Script` (several, written as a generator):

    def submit(...) -> Script[Job]:
        job = yield from insert_job(...)
        yield from outbox.append(JobSubmitted(job.id))
        return job

`Database.run` (flows, sync) and `AsyncDatabase.run` (the API, async) carry a script out in one transaction. So the SQL
and the Python are shared by both, and a transaction can hold nothing but statements: a script has no way to reach the
network while one is open. For the same reason it may be run again: given the *maker* of a script (or a single query),
`run` begins a transaction again that Postgres undid for the sake of another one. A script that was made already is
used up by its first run, so that its conflict is raised.

Our own, over psycopg and its pool: an ORM would hide the SQL that is to be read, and no library lets the sync flows and
the async API share one repository function whose transaction can hold nothing but statements.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

import msgspec
import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from storage.errors import NotFound, TransactionConflict
from storage.postgres.failures import FAILURES, Reruns, named
from storage.postgres.locks import lock_number, try_lock
from storage.settings import PostgresSettings
from storage.thread_pools import Room

T = TypeVar("T")
R = TypeVar("R")
Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Query(Generic[T]):
    """One statement with its parameters, and how its rows become a value. `yield from` it inside a script.

    `copied` are the lines that a COPY ... FROM STDIN is given; `copied_as` are the types of their columns, which a
    binary one needs. `binary`: the rows come in binary, of which bytes are half as long.
    """

    statement: str
    parameters: Mapping[str, Any]
    read: Callable[[Rows], T]
    copied: Sequence[Sequence[Any]] | None = None
    copied_as: Sequence[str] = ()
    binary: bool = False

    def __iter__(self) -> Generator[Query[Any], Any, T]:
        return (yield self)


Script: TypeAlias = Generator[Query[Any], Any, T]
Runnable: TypeAlias = Query[T] | Script[T] | Callable[[], Query[T] | Script[T]]
"""What `run` takes: a query, a script, or the maker of either, which alone can be run again (a query can, too)."""


def load_statements(python_file: str) -> Mapping[str, str]:
    """The named statements of the .sql file beside a repository, by name. Each begins with a line `-- name --`."""
    statements: dict[str, str] = {}
    name = ""
    for line in Path(python_file).with_suffix(".sql").read_text().splitlines():
        if line.startswith("-- ") and line.endswith(" --"):
            name = line[3:-3].strip()
            statements[name] = ""
        elif name:
            statements[name] += line + "\n"
    return statements


def as_record(record: type[R], row: Mapping[str, Any]) -> R:
    """A row as a record; column names are field names."""
    return msgspec.convert(row, record, strict=False)


def one(statement: str, parameters: Mapping[str, Any], record: type[R], missing: str) -> Query[R]:
    """A query for exactly one row. Reading raises NotFound with the text `missing` when there is none."""

    def read(rows: Rows) -> R:
        if not rows:
            raise NotFound(missing)
        return as_record(record, rows[0])

    return Query(statement, parameters, read)


def maybe(statement: str, parameters: Mapping[str, Any], record: type[R]) -> Query[R | None]:
    """A query for one row or None."""
    return Query(statement, parameters, lambda rows: as_record(record, rows[0]) if rows else None)


def many(statement: str, parameters: Mapping[str, Any], record: type[R]) -> Query[list[R]]:
    """A query for any number of rows."""
    return Query(statement, parameters, lambda rows: [as_record(record, row) for row in rows])


def count(statement: str, parameters: Mapping[str, Any]) -> Query[int]:
    """A query whose value is how many rows came back."""
    return Query(statement, parameters, len)


def column(statement: str, parameters: Mapping[str, Any], kind: type[R]) -> Query[list[R]]:
    """A query for the first column of every row."""
    return Query(statement, parameters, lambda rows: [cast(R, next(iter(row.values()))) for row in rows])


def _connection_options(settings: PostgresSettings) -> dict[str, Any]:
    # As options of the connection, not by SET: they cost no round trip, and RESET comes back to them.
    options = (
        f"-c statement_timeout={int(settings.statement_timeout_seconds * 1000)} "
        f"-c lock_timeout={int(settings.lock_timeout_seconds * 1000)} "
        "-c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
    )
    # autocommit: psycopg would otherwise begin a transaction with the first statement, and a connection that listens or
    # holds a session lock would idle in it until the time-out above ends it.
    return {"row_factory": dict_row, "autocommit": True, "options": options, "connect_timeout": 5}


def _check(connection: psycopg.Connection[DictRow]) -> None:
    # An empty statement is the cheapest round trip. Without the check the pool gives out connections that a restart of
    # Postgres has ended, and each of them fails one request.
    connection.execute("")


async def _check_async(connection: psycopg.AsyncConnection[DictRow]) -> None:
    await connection.execute("")


class _Driver(Generic[T]):
    """Steps through a script: returns the next query, takes its rows, keeps the result."""

    def __init__(self, script: Query[T] | Script[T]) -> None:
        self._script: Script[T] = iter(script) if isinstance(script, Query) else script
        self.result: T
        self.query: Query[Any] | None = None
        self._advance(lambda: next(self._script))

    def take(self, rows: Rows) -> None:
        """Hand the current query's rows to the script."""
        query = cast(Query[Any], self.query)
        try:
            value = query.read(rows)
        except NotFound as error:
            raised = error
            self._advance(lambda: self._script.throw(raised))
        else:
            self._advance(lambda: self._script.send(value))

    def _advance(self, step: Callable[[], Query[Any]]) -> None:
        try:
            self.query = step()
        except StopIteration as stop:
            self.query = None
            self.result = stop.value


def _transaction(
    connection: psycopg.AsyncConnection[DictRow], script: Query[T] | Script[T]
) -> AbstractAsyncContextManager[object]:
    """One statement is a transaction by itself: it needs no round trips that begin and commit one."""
    return nullcontext() if isinstance(script, Query) else connection.transaction()


def _made(runnable: Runnable[T]) -> Query[T] | Script[T]:
    return runnable() if callable(runnable) else runnable


class Database:
    """Runs scripts, one transaction each. Sync; for flows, the relay and the command line."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self.reruns = Reruns()
        self._url = settings.url.get_secret_value()
        self._pool = ConnectionPool[psycopg.Connection[DictRow]](
            self._url,
            kwargs=_connection_options(settings),
            # 0: many processes open a database and use it rarely; each idle connection is a process of the server.
            min_size=0,
            max_size=settings.pool_size,
            timeout=10,
            open=True,
            check=_check,
        )

    def run(self, script: Runnable[T]) -> T:
        """Carry out a script in one transaction, again after a conflict if it can be. Raises StoreFailure by name."""
        runs = 0
        while True:
            try:
                return self._run_once(_made(script))
            except TransactionConflict as conflict:
                time.sleep(self.reruns.pause(conflict, runs, possible=not isinstance(script, Generator)))
            runs += 1

    def _run_once(self, script: Query[T] | Script[T]) -> T:
        try:
            with self._pool.connection() as connection, connection.transaction():
                return self._drive(connection, script)
        except FAILURES as error:
            raise named(error, self._settings) from error

    def _drive(self, connection: psycopg.Connection[DictRow], script: Query[T] | Script[T]) -> T:
        driver = _Driver(script)
        while driver.query is not None:
            driver.take(self._rows(connection, driver.query))
        return driver.result

    def _rows(self, connection: psycopg.Connection[DictRow], query: Query[Any]) -> Rows:
        if query.copied is None:
            # Ignored: psycopg types a statement as LiteralString, against SQL built from input. Ours is read from .sql.
            cursor = connection.execute(query.statement, query.parameters, binary=query.binary)  # pyright: ignore[reportArgumentType]
            return cursor.fetchall() if cursor.description else []
        with connection.cursor().copy(query.statement) as copy:  # pyright: ignore[reportArgumentType]
            if query.copied_as:
                copy.set_types(query.copied_as)
            for line in query.copied:
                copy.write_row(line)
        return []

    def connect(self) -> psycopg.Connection[DictRow]:
        """A connection of its own, outside the pool, for session locks and LISTEN. The caller closes it."""
        try:
            return psycopg.Connection[DictRow].connect(self._url, **_connection_options(self._settings))
        except FAILURES as error:
            raise named(error, self._settings) from error

    @contextmanager
    def session_lock(self, name: str) -> Generator[bool]:
        """Hold the advisory lock called `name` on a connection of its own; returns whether it was free."""
        with self.connect() as connection:
            held = try_lock(connection, name)
            try:
                yield held
            finally:
                if held:
                    # A server frees what a closed connection held a moment later only. A lost one holds nothing.
                    with suppress(psycopg.Error):
                        connection.execute("select pg_advisory_unlock(%(number)s)", {"number": lock_number(name)})

    def close(self) -> None:
        """Give every connection back."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


ROOM_SECONDS = 4.0
"""How long a script waits for one of the connections; then its request gets 503 rather than kept waiting."""


class AsyncDatabase:
    """Runs scripts, one transaction each. Async; for the API. `room` has a place for each connection."""

    def __init__(self, settings: PostgresSettings) -> None:
        self.room = Room("postgres", settings.pool_size, ROOM_SECONDS)
        self._url = settings.url.get_secret_value()
        self._settings = settings
        self.reruns = Reruns()
        self._pool = AsyncConnectionPool[psycopg.AsyncConnection[DictRow]](
            self._url,
            kwargs=_connection_options(settings),
            min_size=1,
            max_size=settings.pool_size,
            timeout=4,  # a request gets 503 rather than kept waiting
            open=False,
            check=_check_async,
        )

    async def open(self) -> None:
        """Start the pool. It keeps trying when Postgres is not there yet."""
        # Not waited for: the API starts, and serves what needs no Postgres, while that is unavailable.
        await self._pool.open(wait=False)

    async def run(self, script: Runnable[T]) -> T:
        """Carry out a script in one transaction, again after a conflict if it can be. Raises StoreFailure by name,
        PoolBusy when every connection is in use for too long."""
        runs = 0
        while True:
            try:
                return await self._run_once(_made(script))
            except TransactionConflict as conflict:
                await asyncio.sleep(self.reruns.pause(conflict, runs, possible=not isinstance(script, Generator)))
            runs += 1

    async def _run_once(self, script: Query[T] | Script[T]) -> T:
        try:
            async with (
                # Before the pool: its own time-out cannot distinguish a pool in use from a Postgres that does not
                # respond, and load balancers took busy processes out for it. Whoever waits for room is also counted.
                self.room.place(),
                self._pool.connection() as connection,
                _transaction(connection, script),
            ):
                driver = _Driver(script)
                while driver.query is not None:
                    driver.take(await self._rows(connection, driver.query))
                return driver.result
        except FAILURES as error:
            raise named(error, self._settings) from error

    async def _rows(self, connection: psycopg.AsyncConnection[DictRow], query: Query[Any]) -> Rows:
        if query.copied is None:
            cursor = await connection.execute(query.statement, query.parameters, binary=query.binary)  # pyright: ignore[reportArgumentType]
            return await cursor.fetchall() if cursor.description else []
        async with connection.cursor().copy(query.statement) as copy:  # pyright: ignore[reportArgumentType]
            if query.copied_as:
                copy.set_types(query.copied_as)
            for line in query.copied:
                await copy.write_row(line)
        return []

    async def connect(self) -> psycopg.AsyncConnection[DictRow]:
        """A connection of its own, outside the pool, for LISTEN. The caller closes it."""
        try:
            return await psycopg.AsyncConnection[DictRow].connect(self._url, **_connection_options(self._settings))
        except FAILURES as error:
            raise named(error, self._settings) from error

    async def close(self) -> None:
        """Give every connection back."""
        async with asyncio.timeout(10):
            await self._pool.close()
