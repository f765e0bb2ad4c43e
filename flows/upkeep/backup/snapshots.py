"""One moment of Darkroom's database: exported for pg_dump, and the blobs that its rows name at that moment."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg.rows import DictRow

from storage.errors import BackupFailed, InUse
from storage.postgres.connection import Database, Query
from storage.postgres.locks import BLOB_SWEEP, lock_number, try_lock
from storage.postgres.upkeep import references

PAGE = 10_000
SWEEP_SECONDS = 900.0
"""So long a sweep of blobs that runs already is waited for."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of the database, held open. `id` is what pg_dump is given."""

    id: str
    connection: psycopg.Connection[DictRow]

    def blobs(self) -> Iterator[tuple[str, int]]:
        """The SHA-256 of every blob that a row names, in order, each with its size in bytes."""
        return references.pages(self._read, "", references.BEHIND, PAGE)

    def _read(self, query: Query[dict[str, int]]) -> dict[str, int]:
        return query.read(self.connection.execute(query.statement, query.parameters).fetchall())  # pyright: ignore[reportArgumentType]

    def migrations(self) -> list[str]:
        """The names of the migrations that the schema has."""
        rows = self.connection.execute("select name from schema_migrations order by name").fetchall()
        return [str(row["name"]) for row in rows]

    def server_version(self) -> int:
        """The server's version number: 180006."""
        return self.connection.info.server_version


@contextmanager
def snapshot(database: Database) -> Generator[Snapshot]:
    """A moment, held open for as long as the block lasts. Raises StoreUnavailable."""
    with database.connect() as connection:
        # Both default to a minute or less, which a dump may take.
        connection.execute("set idle_in_transaction_session_timeout = 0")
        connection.execute("set statement_timeout = 0")
        with connection.transaction():
            # pg_dump takes part in this very snapshot, and later statements here see it too: the list of blobs is that
            # of the dump.
            connection.execute("set transaction isolation level repeatable read, read only")
            row = connection.execute("select pg_export_snapshot() as id").fetchone()
            yield Snapshot(str(row["id"]) if row else "", connection)


@contextmanager
def without_sweep(database: Database, *, patience_seconds: float = SWEEP_SECONDS) -> Generator[None]:
    """No blob is swept for as long as the block lasts.

    Raises InUse when a sweep does not end, BackupFailed when the lock was lost with its connection.
    """
    deadline = time.monotonic() + patience_seconds
    with database.connect() as connection:
        while not try_lock(connection, BLOB_SWEEP):
            if time.monotonic() > deadline:
                raise InUse(f"Blobs have been swept for {patience_seconds:.0f} s. Back up again when that has ended.")
            time.sleep(0.5)
        yield
        try:
            # The lock belongs to this session. If the connection was lost meanwhile, a sweep may have run beside the
            # copying.
            connection.execute("select 1")
        except psycopg.Error as error:
            raise BackupFailed("Postgres was restarted during the backup. Back up again.") from error
        # A server frees what a closed connection held a moment later only.
        with suppress(psycopg.Error):
            connection.execute("select pg_advisory_unlock(%(number)s)", {"number": lock_number(BLOB_SWEEP)})
