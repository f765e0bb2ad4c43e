"""Advisory locks of jobs: whoever works on a job holds its lock, so that an older attempt's process is not beside it.

A lock belongs to a connection outside the pool, since pooled ones are passed around. A process with one job has a
connection for its lock alone; one with many holds all their locks on one.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

import psycopg

from storage.errors import JobAlreadyRunning, JobLost
from storage.postgres.connection import Database
from storage.postgres.locks import lock_number, try_lock


def lock_name(job_id: UUID) -> str:
    """Name of the advisory lock that the process running a job holds."""
    return f"job:{job_id}"


class JobLock(Protocol):
    """The lock of one job, held."""

    def keep(self) -> None:
        """Take it again after Postgres was unavailable. Raises JobLost when another process has it, StoreFailure."""
        ...

    def release(self) -> None:
        """Let others have it."""
        ...


class OwnLock:
    """A lock on a connection of its own."""

    def __init__(self, database: Database, job_id: UUID, connection: psycopg.Connection[Any]) -> None:
        """`connection` holds it; it is closed with it."""
        self._database, self._job_id, self._connection = database, job_id, connection

    def keep(self) -> None:
        """See JobLock."""
        try:
            self._connection.execute("select 1")
        except psycopg.Error:
            self._connection.close()
            self._connection = self._database.connect()
            if not try_lock(self._connection, lock_name(self._job_id)):
                raise _lost(self._job_id) from None

    def release(self) -> None:
        """See JobLock."""
        with suppress(psycopg.Error):
            self._connection.close()


def own_lock(database: Database, job_id: UUID, *, wait_seconds: float) -> OwnLock:
    """A job's lock. Raises JobAlreadyRunning when another process still has it after so long, StoreFailure."""
    connection, deadline = database.connect(), time.monotonic() + wait_seconds
    # Not in a `with`; leaked, it would hold the job until the garbage is collected.
    try:
        while not try_lock(connection, lock_name(job_id)):
            if time.monotonic() >= deadline:
                raise JobAlreadyRunning(f"Another process still holds job {job_id}; it must end first.")
            time.sleep(0.5)
    except BaseException:
        connection.close()
        raise
    return OwnLock(database, job_id, connection)


class SharedLocks:
    """The locks of many jobs on one connection. Several threads use it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.Connection[Any] | None = None
        self._held: set[UUID] = set()
        self._lost: set[UUID] = set()
        self._guard = threading.Lock()

    def take(self, job_id: UUID) -> bool:
        """Take a job's lock; returns whether this process has it now and had it not before. Raises StoreFailure."""
        with self._guard:
            # Postgres would let the same connection take a lock twice.
            if job_id in self._held:
                return False
            try:
                free = try_lock(self._connected(), lock_name(job_id))
            except psycopg.Error:
                self._disconnect()
                return False  # the connection broke: `keep` opens another
            if free:
                self._held.add(job_id)
            return free

    def keep(self) -> dict[UUID, JobLost]:
        """Take all again after Postgres was unavailable; returns those that another process has by now.

        Raises StoreFailure.
        """
        with self._guard:
            try:
                self._connected().execute("select 1")
            except psycopg.Error:
                self._disconnect()
                with suppress(psycopg.Error):
                    self._connected()
            lost, self._lost = self._lost, set()
            return {job_id: _lost(job_id) for job_id in lost}

    def release(self, job_id: UUID) -> None:
        """Let others have a job's lock."""
        with self._guard:
            if job_id in self._held and self._connection is not None:
                # One that is lost holds nothing.
                with suppress(psycopg.Error):
                    number = {"number": lock_number(lock_name(job_id))}
                    self._connection.execute("select pg_advisory_unlock(%(number)s)", number)
            self._held.discard(job_id)
            self._lost.discard(job_id)

    def close(self) -> None:
        """Release all."""
        with self._guard:
            self._held.clear()
            self._disconnect()

    def _connected(self) -> psycopg.Connection[Any]:
        """The connection. A new one holds all locks again, but for those that others have: they are lost."""
        if self._connection is None:
            connection = self._database.connect()
            try:
                lost = {job_id for job_id in self._held if not try_lock(connection, lock_name(job_id))}
            except BaseException:
                # Half of them taken again would look like all.
                with suppress(psycopg.Error):
                    connection.close()
                raise
            self._held -= lost
            self._lost |= lost
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


class SharedLock:
    """One of the locks on a connection that several jobs share; whoever has the connection keeps it."""

    def __init__(self, locks: SharedLocks, job_id: UUID) -> None:
        self._locks, self._job_id = locks, job_id
        self._released = False

    def keep(self) -> None:
        """See JobLock."""

    def release(self) -> None:
        """See JobLock."""
        # Once: later the same process may hold it for another attempt.
        if not self._released:
            self._released = True
            self._locks.release(self._job_id)


def _lost(job_id: UUID) -> JobLost:
    return JobLost(f"Another process holds job {job_id} since Postgres came back; this one stops.")
