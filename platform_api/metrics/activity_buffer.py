"""Acts that routes count without waiting for Postgres: a buffer in memory, written down every second.

A download is served as fast as before. What a process that is killed had not written down, a second's worth at most,
is not counted. While Postgres is unavailable the buffer is kept, up to a limit.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from storage.errors import StoreFailure
from storage.postgres.connection import AsyncDatabase
from storage.postgres.metrics import activity
from storage.records.metrics.activity import MAX_ACTIVITIES, Act, Counted, Metric

LOG = logging.getLogger("darkroom.api")

SOURCE = "api"
EVERY_SECONDS = 1.0
KEPT = 100_000
"""Acts that are kept while Postgres is unavailable; more are dropped, and how many is logged."""


class ActivityBuffer:
    """What this process has counted and not yet written down."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._acts: list[Act] = []
        self._dropped = 0
        self._writing = asyncio.Lock()

    def add(self, entity: Counted, entity_id: int, metric: Metric) -> None:
        """Count an act, now."""
        if len(self._acts) >= KEPT:
            self._dropped += 1
            return
        # The key makes a write whose response came too late, and is repeated, count nothing twice.
        key, now = str(uuid4()), datetime.now(UTC)
        self._acts.append(Act(key=key, entity=entity, entity_id=entity_id, metric=metric, occurred_at=now))

    async def flush(self) -> None:
        """Write what was counted. What Postgres does not take now is kept for the next time."""
        async with self._writing:
            while self._acts:
                batch = self._acts[:MAX_ACTIVITIES]
                try:
                    await self._database.run(partial(activity.ingest, SOURCE, batch))
                except StoreFailure as error:
                    LOG.warning("%d counted acts wait: %s", len(self._acts), error)
                    return
                # After the commit, and only those: others came while it was under way.
                del self._acts[: len(batch)]
            if self._dropped:
                LOG.error("%d acts were not counted: Postgres was unavailable for too long", self._dropped)
                self._dropped = 0

    async def flush_periodically(self) -> None:
        """Write every second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.flush()
            except Exception:
                LOG.exception("counted acts could not be written")
