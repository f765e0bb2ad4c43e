"""The connection of a process that is notified of events as they are committed."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg.rows import DictRow

from storage.postgres.connection import Database


class OutboxListener:
    """A connection that listens to the outbox, opened again after it broke.

    `wake` is called for what is notified, and once for each new connection: something may have come meanwhile.
    """

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        self._database, self._wake = database, wake
        self._connection: psycopg.Connection[DictRow] | None = None

    def listen(self, seconds: float) -> None:
        """Listen for some seconds, or until something was notified. Raises StoreFailure, psycopg.Error."""
        if self._connection is None:
            connection = self._database.connect()
            try:
                connection.execute("listen outbox")
            except psycopg.Error:
                connection.close()  # kept, it would look like one that listens
                raise
            self._connection = connection
            self._wake()
        try:
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                self._wake()
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Listen no more, until the next call."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
