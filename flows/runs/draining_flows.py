"""Flows that drain a queue: one run empties it, waits a little for more, and ends. A flow run costs seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import psycopg
from psycopg.rows import DictRow

from flows.runs.artifacts import leave_table
from flows.runs.light_tracking import note
from flows.runs.run_logs import run_logger
from storage.errors import PostgresUnavailable
from storage.postgres.connection import Database
from storage.postgres.events import drain_wakeups
from storage.postgres.locks import try_lock
from storage.postgres.upkeep import pauses
from storage.settings import Settings, load_settings
from storage.stores import Stores, open_stores

_log = partial(run_logger, "darkroom.drains")

# A start costs seconds and a waiting run next to nothing, while changes rarely come alone.
IDLE_SECONDS = 30.0
"""A drain that found work waits this long for more before it ends."""
ITERATION_SECONDS = 15.0
"""A drain that always finds more stops this often to see whether its flow is paused."""


class Work:
    """What the drains of one run did, and how long they worked at it: waiting for more does not count."""

    def __init__(self) -> None:
        self.rows, self.seconds = 0, 0.0

    def timed(self, drain: Callable[[], int]) -> Callable[[], int]:
        """The same drain, counted here."""

        def counted() -> int:
            began = time.monotonic()
            done = drain()
            if done:
                self.rows += done
                self.seconds += time.monotonic() - began
            return done

        return counted

    def metrics(self) -> dict[str, float]:
        """Rows, seconds and the rate."""
        rate = self.rows / max(self.seconds, 1e-3)
        return {"rows": self.rows, "seconds": self.seconds, "rows_per_second": rate}


def note_point(settings: Settings, flow: str, metrics: Mapping[str, float]) -> None:
    """Add a point to the flow's tracking run of this UTC day, which the drains of the day share; show it in Prefect.

    A run for each of thousands of small drains could not be read; this one is the day's chart.
    """
    moment = datetime.now(UTC)
    second = moment.hour * 3600 + moment.minute * 60 + moment.second
    note(settings, flow, f"{moment:%Y-%m-%d}", metrics, step=second)
    leave_table(flow, [dict(metrics)])


class DrainLock:
    """The lock that one run of a flow holds while it drains. A restart of Postgres ends it, so a long run keeps it."""

    def __init__(self, database: Database, flow: str) -> None:
        """It is not taken before `keep`."""
        self._database, self._flow = database, flow
        self._connection: psycopg.Connection[DictRow] | None = None

    def keep(self) -> bool:
        """Take it, or take it again where its connection broke; returns whether this process has it now.

        Raises StoreFailure while Postgres is unavailable.
        """
        try:
            if self._connection is not None:
                self._connection.execute("select 1")
                return True
        except psycopg.Error:
            self.release()
        connection = self._database.connect()
        try:
            held = try_lock(connection, self._flow)
        except psycopg.Error as error:
            connection.close()
            raise PostgresUnavailable(f"The lock of {self._flow} was not taken: its connection broke.") from error
        except BaseException:
            connection.close()
            raise
        if held:
            self._connection = connection
        else:
            connection.close()
        return held

    def release(self) -> None:
        """Let another run drain."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                # A server frees what a closed connection held a moment later only.
                connection.execute("select pg_advisory_unlock_all()")
            connection.close()


class Drain(NamedTuple):
    """What the one run of a flow that drains has."""

    stores: Stores
    lock: DrainLock


@contextmanager
def locked_drain(flow: str) -> Generator[Drain | None]:
    """For the one run of a flow that drains, which may release the lock before the end; None while another one drains.

    The run has begun, so the relay gives the next one another key.
    """
    with open_stores(load_settings()) as stores:
        lock = DrainLock(stores.database, flow)
        try:
            held = lock.keep()
            if held:
                # Under the lock: from here on the relay asks for the next run under another key, so one that dies is
                # followed by another.
                stores.database.run(drain_wakeups.advance(flow))
            else:
                _log().info("another run drains what waits for %s", flow)
            yield Drain(stores, lock) if held else None
        finally:
            lock.release()


@contextmanager
def sole_drain(flow: str) -> Generator[Stores | None]:
    """The stores of the one run of a flow that drains to the end of the block; None while another one does."""
    with locked_drain(flow) as drain:
        yield None if drain is None else drain.stores


def drain_until_idle(
    stores: Stores,
    flow: str,
    channel: str,
    drain: Callable[[], int],
    next_due: Callable[[], float | None],
    idle_seconds: float,
) -> int:
    """Drain again whenever somebody notifies `channel` or something falls due, until nobody has for `idle_seconds`.

    The run of a flow that is paused meanwhile ends with what it has taken.
    `drain` empties the queue and returns how much it did; `next_due` says in how many seconds more is due, if known.
    """
    total = 0
    with stores.database.connect() as listener:
        # Before the first drain: what is announced while it works wakes the wait below.
        listener.execute(f"listen {channel}".encode())
        deadline = time.monotonic() + idle_seconds
        while True:
            done = drain()
            total += done
            now = time.monotonic()
            if done:
                deadline = now + idle_seconds
            # A run that found nothing was started for what another one has taken; it does not wait for more.
            elif total == 0 or now >= deadline:
                return total
            if stores.database.run(pauses.is_paused(flow)):
                return total
            _wait(listener, next_due(), deadline - now)


def _wait(listener: psycopg.Connection[DictRow], due: float | None, seconds: float) -> None:
    # Not 0: what is due and held by somebody else would be asked for without a pause.
    limit = seconds if due is None else max(0.05, min(seconds, due))
    for _ in listener.notifies(timeout=limit, stop_after=1):
        return
