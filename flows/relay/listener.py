"""The duty `listening`: it is notified of new events as they are committed, and wakes the duties that act on them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import psycopg
from psycopg.rows import DictRow

from flows.relay.duty import Duty
from storage.postgres.connection import Database

LISTEN_SECONDS = 1.0
"""The longest that a relay that stops waits for it."""


def duty(database: Database, acting: Sequence[Duty]) -> Duty:
    """`acting` are woken."""
    listener = OutboxListener(database, [one.waking for one in acting])
    return Duty("listening", 0.0, listener.iterate, close=listener.close)


class OutboxListener:
    """A connection that listens, opened again after it broke."""

    def __init__(self, database: Database, wakings: Sequence[threading.Event]) -> None:
        self._database, self._wakings = database, wakings
        self._connection: psycopg.Connection[DictRow] | None = None

    def iterate(self) -> bool:
        """Listen for a second, or until something was notified. Raises StoreFailure, psycopg.Error."""
        if self._connection is None:
            connection = self._database.connect()
            try:
                connection.execute("listen outbox")
            except psycopg.Error:
                connection.close()  # kept, it would look like one that listens
                raise
            self._connection = connection
            self._wake()  # what came meanwhile
        try:
            for _ in self._connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                self._wake()
        except psycopg.Error:
            self.close()
            raise
        return False

    def close(self) -> None:
        """Listen no more, until the next iteration."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _wake(self) -> None:
        for waking in self._wakings:
            waking.set()
