"""Whether what the API needs is well, asked once a second at most however many want to know.

Load balancers, containers and people ask often, and each look takes a connection to Postgres that requests need. So a
look is kept for KEPT_SECONDS, and who asks while one is under way waits for that one. A look uses one connection at a
time. When it gets none, or no response, one outside the pool decides whether Postgres is busy or unavailable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

import psycopg

from platform_api.upkeep.health_views import MetricsHealth, NotificationsHealth, Parts, RelayHealth, SearchHealth
from storage.errors import StoreFailure
from storage.postgres.connection import Query, Script
from storage.postgres.events import duties, outbox
from storage.postgres.metrics import freshness
from storage.postgres.notifications import deliveries, notifications
from storage.postgres.search import search_queue
from storage.postgres.upkeep import alerts
from storage.records.metrics.freshness import PartitionState
from storage.stores import AsyncStores

T = TypeVar("T")

KEPT_SECONDS = 1.0
PATIENCE_SECONDS = 2.0


class KeptLook(Generic[T]):
    """What `look` found last, for KEPT_SECONDS; one look at a time."""

    def __init__(self, look: Callable[[], Awaitable[T]]) -> None:
        self._look = look
        self._under_way: asyncio.Task[T] | None = None
        self._found: tuple[float, T] | None = None

    async def get(self) -> T:
        """What was found at most KEPT_SECONDS ago."""
        if self._found is not None and time.monotonic() - self._found[0] < KEPT_SECONDS:
            return self._found[1]
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._look_now())
        return await asyncio.shield(self._under_way)  # who goes away ends nobody else's look

    async def _look_now(self) -> T:
        try:
            found = await self._look()
            self._found = (time.monotonic(), found)
            return found
        finally:
            self._under_way = None


async def look(stores: AsyncStores) -> Parts:
    """How each part is now."""
    rows, valkey, responds = await asyncio.gather(_rows(stores), _valkey(stores), _search_responds(stores))
    relay, search, metrics, notifications = rows
    return Parts(
        postgres="ok" if relay else await _postgres_state(stores),
        valkey="ok" if valkey else "unavailable",
        relay=relay,
        search=search and _search_health(search, responds=responds),
        metrics=metrics,
        notifications=notifications,
    )


async def _rows(
    stores: AsyncStores,
) -> tuple[RelayHealth | None, search_queue.SearchLag | None, MetricsHealth | None, NotificationsHealth | None]:
    """What Postgres says, one question after the other. The first decides whether it is there."""
    relay = await in_time(stores, _relay())
    if relay is None:
        return None, None, None, None
    late_after = stores.settings.metrics.late_after_seconds
    search = await in_time(stores, search_queue.lag())
    metrics = await in_time(stores, _metrics(late_after))
    return relay, search, metrics, await in_time(stores, _notifications())


async def _postgres_state(stores: AsyncStores) -> str:
    """`busy` when Postgres responds on a connection of its own: then it has only no time, or too many ask;
    `unavailable`."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            # Outside the pool: a pool that is exhausted says nothing about Postgres, and a load balancer would take the
            # process out.
            connection = await stores.database.connect()
            async with connection:
                await connection.execute("select")
    except (StoreFailure, psycopg.Error, TimeoutError):
        return "unavailable"
    return "busy"


def _relay() -> Script[RelayHealth]:
    backlog = yield from outbox.backlog()
    return RelayHealth(
        waiting=backlog.waiting,
        oldest_seconds=round(backlog.oldest_seconds, 1),
        dead=backlog.dead,
        failing=[duty.name for duty in (yield from duties.every()) if duty.is_failing],
    )


async def _valkey(stores: AsyncStores) -> bool:
    try:
        return await asyncio.wait_for(stores.progress.alive(), PATIENCE_SECONDS)
    except TimeoutError:
        return False


async def _search_responds(stores: AsyncStores) -> bool:
    try:
        return await asyncio.wait_for(stores.search.reader.alive(), PATIENCE_SECONDS)
    except TimeoutError:
        return False


def _search_health(lag: search_queue.SearchLag, *, responds: bool) -> SearchHealth:
    return SearchHealth(
        state="ok" if responds else "unavailable",
        waiting=lag.waiting,
        oldest_seconds=round(lag.oldest_seconds, 1),
        oldest_counts_seconds=round(lag.oldest_counts_seconds, 1),
        dead_letters=lag.dead_letters,
    )


def _metrics(late_after_seconds: float) -> Script[MetricsHealth]:
    flows = yield from freshness.report(datetime.now(UTC), late_after_seconds)
    raised = yield from alerts.raised()
    return MetricsHealth(
        state=max((flow.state for flow in flows), key=list(PartitionState).index),
        waiting=sum(flow.waiting for flow in flows),
        oldest_seconds=round(max(flow.oldest_seconds for flow in flows), 1),
        alerts=[alert.name for alert in raised],
    )


def _notifications() -> Script[NotificationsHealth]:
    fan_out = yield from notifications.lag()
    sending = yield from deliveries.lag()
    return NotificationsHealth(
        waiting=fan_out.waiting + sending.waiting + sending.sendings,
        oldest_seconds=round(max(fan_out.oldest_seconds, sending.oldest_seconds), 1),
        dead_letters=sending.dead_letters + fan_out.failed,
        of_other_releases=sending.of_other_releases,
    )


async def in_time(stores: AsyncStores, script: Query[T] | Script[T]) -> T | None:
    """What Postgres says, None when it does not say it soon."""
    try:
        return await asyncio.wait_for(stores.database.run(script), PATIENCE_SECONDS)
    except (StoreFailure, TimeoutError):
        return None
