"""Threads stepped one at a time: which of them goes on at each point is decided by the test, never by the clock.

An actor is a function in a thread of its own. It stops before each statement, before each commit and before each call
that changes or asks a file system, until it is told to go on. Postgres itself says who waits for a lock, so a schedule
is carried out the same way each time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import DictRow

from storage.blobs.store import BlobStore
from storage.postgres.connection import Database, Query, Rows, Script
from storage.settings import PostgresSettings

T = TypeVar("T")

MAX_SECONDS = 20.0
"""A step that takes longer hangs."""
FILE_CALLS = ("link", "rename", "replace", "unlink", "utime")
"""Calls of `os` that an actor stops before."""

_current = threading.local()


class Actor:
    """One thread that stops at every point."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._may, self.stopped = work, threading.Event(), threading.Event()
        self.ended, self.points = False, 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.stopped.wait()

    def point(self) -> None:
        """Stop here until told to go on."""
        self.points += 1
        self.stopped.set()
        self._may.wait()
        self._may.clear()

    def go(self) -> None:
        """Let it run to its next point."""
        self.stopped.clear()
        self._may.set()

    def _run(self) -> None:
        _current.actor = self
        try:
            self.point()
            self._work()
        except BaseException as error:  # noqa: BLE001 - the test that steps it raises it
            self.failure = error
        self.ended = True
        self.stopped.set()


def point() -> None:
    """Stop the actor whose thread this is."""
    actor = getattr(_current, "actor", None)
    if actor is not None:
        actor.point()


class Schedule:
    """Carries out steps of actors, and knows which of them wait for a lock."""

    def __init__(self, url: str) -> None:
        self.watch = psycopg.connect(url, autocommit=True)

    def step(self, actors: Sequence[Actor], chosen: int) -> None:
        """One step of the chosen actor; of another where it has ended or waits for a lock."""
        free = [actor for actor in actors if actor.stopped.is_set() and not actor.ended]
        actor = actors[chosen] if actors[chosen] in free else next(iter(free), None)
        if actor is not None:
            actor.go()
        self._settle(actors)

    def finish(self, actors: Sequence[Actor], chosen: int) -> None:
        """Every step that is left, of the chosen one first. Raises what an actor raised."""
        while not all(actor.ended for actor in actors):
            self.step(actors, chosen)
        for actor in actors:
            if actor.failure is not None:
                raise actor.failure

    def cut_off(self) -> None:
        """Have Postgres end every session but its own, as a restart or a failover does."""
        self.watch.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        """Give the connection back."""
        self.watch.close()

    def _settle(self, actors: Sequence[Actor]) -> None:
        """Wait until everybody has come to a point, to the end, or to a lock that another holds."""
        deadline = time.monotonic() + MAX_SECONDS
        while running := [actor for actor in actors if not actor.stopped.is_set()]:
            # Most come to their next point within it; only then is Postgres asked who waits for a lock.
            if not any(actor.stopped.wait(0.004) for actor in running) and self._waiting() >= len(running):
                return
            assert time.monotonic() < deadline, "an actor hangs"

    def _waiting(self) -> int:
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        row = self.watch.execute(waiting).fetchone()
        return int(row[0]) if row else 0


class SteppedDatabase(Database):
    """Stops before each statement and each commit."""

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings)

    def _rows(self, connection: psycopg.Connection[DictRow], query: Query[Any]) -> Rows:
        point()
        return super()._rows(connection, query)

    def _drive(self, connection: psycopg.Connection[DictRow], script: Query[T] | Script[T]) -> T:
        result = super()._drive(connection, script)
        point()
        return result


class _SteppedFiles:
    """A file system of fsspec that stops before each call."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if not callable(found):
            return found

        def stepped(*arguments: Any, **options: Any) -> Any:
            point()
            return found(*arguments, **options)

        return stepped


def step_through(store: BlobStore) -> BlobStore:
    """Have a store stop before each call of its file system."""
    store._fs = _SteppedFiles(store._fs)
    return store


@contextmanager
def stepped_disk(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have actors stop before each call that changes a disk."""
    with patch.context() as patched:
        for name in FILE_CALLS:
            call = getattr(os, name)

            def stepped(*arguments: Any, _call: Any = call, **options: Any) -> Any:
                point()
                return _call(*arguments, **options)

            patched.setattr(os, name, stepped)
        yield
