"""Whether something that was read of the catalogue is still so, asked of Postgres itself.

A message that empties a cache can come too late, or never: the message is lost, the store is unavailable, an old
response is stored after the message. So nothing here is sent. Whoever wants to serve a cached response asks Postgres
first what has committed since the last question (`changes.since`: one statement, a fraction of a millisecond, one for
all requests that wait at that moment) and serves it only if nothing that it depends on is among that. A response that
is cached too late is numbered by the moment at which its reading began, so it is not served either. While Postgres is
unavailable nothing is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import psycopg
from psycopg.rows import DictRow

from storage.batches import Batches
from storage.errors import StoreUnavailable
from storage.postgres.connection import AsyncDatabase
from storage.postgres.events import changes
from storage.postgres.events.changes import Changes
from storage.records.events.events import Lane

MAX_PAUSE_SECONDS = 300.0
"""After a longer pause between two questions everything counts as changed: the events may be many by then, or gone."""
MAX_EVENTS = 1000
MAX_MODELS = 100_000
WAIT_SECONDS = 4.0


class Every(IntEnum):
    """What of every model a response depends on, beside the models that it names."""

    NOTHING = 0
    EDITS = 1
    """Whether it may be shown, and what it says."""
    ALL = 2
    """How often it was used, too."""


@dataclass(frozen=True)
class Dependencies:
    """What a response depends on: some models, wholly, and something of every model."""

    models: frozenset[int] = frozenset()
    all_of: Every = Every.NOTHING


class CatalogueWatch:
    """Numbers the moments at which the catalogue was seen to have changed, in one process."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._cursor: psycopg.AsyncCursor[DictRow] | None = None
        # As good as no limit: one query is enough for everybody who waits.
        self._batches = Batches[None, None](self._look_once, maximum=100_000)
        self._snapshot: str | None = None
        self._asked_at = 0.0
        self._moment = 0
        self._known_since = 0
        self._any_change, self._any_edit = 0, 0
        self._changed: dict[int, int] = {}

    async def look(self) -> None:
        """See everything that committed before this call began. Raises StoreUnavailable."""
        await self._batches.ask(None)

    @property
    def moment(self) -> int:
        """The last moment that was seen: what is read from now on is read after it."""
        return self._moment

    def holds(self, moment: int, dependencies: Dependencies) -> bool:
        """Whether what was read after `moment` is still so, as far as was looked."""
        if moment < self._known_since:
            return False
        if dependencies.all_of is not Every.NOTHING:
            newest = self._any_change if dependencies.all_of is Every.ALL else self._any_edit
            if newest > moment:
                return False
        return all(self._changed.get(model, 0) <= moment for model in dependencies.models)

    async def _look_once(self, waiting: list[None]) -> Sequence[None]:
        # Taken before the question: the pause counts from the moment that the response is certain to cover.
        began = time.monotonic()
        if began - self._asked_at > MAX_PAUSE_SECONDS:
            self._forget()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                found = await self._ask()
        except (psycopg.Error, TimeoutError) as error:
            await self._lose()
            raise StoreUnavailable(f"Postgres does not respond ({type(error).__name__}). Try again soon.") from error
        self._asked_at = began
        self._snapshot = found.snapshot
        self._note(found)
        return waiting

    def _note(self, found: Changes) -> None:
        if not found.events:
            return
        self._moment += 1
        # As many as were asked for: there may be more that were cut off, so nothing older counts as known.
        if len(found.events) == MAX_EVENTS or len(self._changed) > MAX_MODELS:
            self._known_since = self._moment
            self._changed.clear()
        self._any_change = self._moment
        for event in found.events:
            if event.lane is not Lane.COUNTS:
                self._any_edit = self._moment
            for model in event.model_ids:
                self._changed[model] = self._moment

    def _forget(self) -> None:
        """Everything counts as changed."""
        self._snapshot = None
        self._moment += 1
        self._known_since = self._moment
        self._changed.clear()

    async def _ask(self) -> Changes:
        try:
            # Tried twice: the first failure is mostly a connection that died while nobody asked.
            return await self._execute()
        except (psycopg.Error, StoreUnavailable):
            await self._lose()
        return await self._execute()

    async def _lose(self) -> None:
        """Another connection may lead to another server, or to an older state of this one."""
        await self.close()
        self._forget()

    async def _execute(self) -> Changes:
        if self._cursor is None:
            self._cursor = (await self._database.connect()).cursor()
        query = changes.since(self._snapshot, MAX_EVENTS)
        # Ignored for the reason given in storage/postgres/connection.py: statements come from .sql files.
        await self._cursor.execute(query.statement, query.parameters)  # pyright: ignore[reportArgumentType]
        return query.read(await self._cursor.fetchall())

    async def close(self) -> None:
        """Give the connection back."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            await cursor.connection.close()
