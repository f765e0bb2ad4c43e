"""Whether the door and what it needs are well."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, TypeVar, cast

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta

from platform_api.access import Open
from platform_api.problems import Refusals
from storage.errors import StoreFailure
from storage.postgres import deliveries, duties, freshness, notifications, outbox, search_queue
from storage.postgres.connection import Query, Script
from storage.records.freshness import PartitionState
from storage.stores import AsyncStores

T = TypeVar("T")

PATIENCE_SECONDS = 2.0
RELAY_LATE_SECONDS = 30.0
SEARCH_LATE_SECONDS = 30.0
NOTIFICATIONS_LATE_SECONDS = 300.0


class RelayHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Committed events that still wait for their effect, and what carries them there."""

    waiting: int
    oldest_seconds: float
    set_aside: Annotated[int, Meta(description="Events whose effect failed ten times.")]
    failing: Annotated[
        list[str], Meta(description="Duties of the relay that have not done their work for too long; all: it is away.")
    ]


class SearchHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether searches are answered, and how far they are behind the catalogue. Ages are in seconds."""

    state: Annotated[str, Meta(examples=["ok"])]
    waiting: Annotated[int, Meta(description="Changed rows that searches do not show yet.")]
    oldest_seconds: Annotated[float, Meta(description="Age of the oldest change that waits, counts aside.")]
    oldest_counts_seconds: Annotated[float, Meta(description="Age of the oldest change of counts that waits.")]
    dead_letters: Annotated[int, Meta(description="Rows that could not be indexed.")]


class MetricsHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How fresh the counts of the catalogue are."""

    state: Annotated[str, Meta(examples=["fresh"], description="`fresh`, `due` or `late`; see /api/v1/freshness.")]
    waiting: Annotated[int, Meta(description="Batches of counted acts that no roll-up has taken.")]
    oldest_seconds: float
    alarms: Annotated[list[str], Meta(description="Alarms that are raised now.")]


class NotificationsHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What readers should have been told by now. The age is in seconds."""

    waiting: Annotated[int, Meta(description="Notifications, deliveries and sendings that wait.")]
    oldest_seconds: Annotated[float, Meta(description="How late the oldest of them is.")]
    dead_letters: Annotated[
        int, Meta(description="Sendings that were given up, and notifications that cannot be told.")
    ]


class Parts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Each part: `ok` or `away`."""

    postgres: Annotated[str, Meta(examples=["ok"])]
    valkey: Annotated[str, Meta(examples=["ok"])]
    relay: RelayHealth | None
    search: SearchHealth | None
    metrics: MetricsHealth | None
    notifications: NotificationsHealth | None


class HealthView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`ok`; `degraded` when something is slower or late; `down` when requests cannot be answered."""

    status: Annotated[str, Meta(examples=["ok"])]
    parts: Parts
    refusals: Annotated[dict[str, int], Meta(description="Requests refused since the start, by reason.")]


class Health(Controller):
    """Whether the door and what it needs are well."""

    path = "/health"
    tags = ("Health",)

    @get(
        "/",
        guards=[Open("load balancers and `darkroom up` ask without a key; it tells nobody's secrets", counted=False)],
        responses={503: ResponseSpec(HealthView, generate_examples=False, description="Postgres is away")},
        summary="Health",
    )
    async def show(self, stores: AsyncStores, state: State) -> Response[HealthView]:
        """503 only when Postgres is away; anything else that is missing makes things slower, not wrong."""
        relay, valkey, search, metrics, told = await asyncio.gather(
            _relay(stores), _valkey(stores), _search(stores), _metrics(stores), _notifications(stores)
        )
        late = relay is not None and (
            relay.oldest_seconds > RELAY_LATE_SECONDS or bool(relay.set_aside or relay.failing)
        )
        behind = search is not None and (search.state != "ok" or search.oldest_seconds > SEARCH_LATE_SECONDS)
        stale = metrics is not None and (metrics.state == PartitionState.LATE or bool(metrics.alarms))
        untold = told is not None and told.oldest_seconds > NOTIFICATIONS_LATE_SECONDS
        degraded = late or behind or stale or untold or not valkey
        status = "down" if relay is None else "degraded" if degraded else "ok"
        parts = Parts(
            postgres="ok" if relay else "away",
            valkey="ok" if valkey else "away",
            relay=relay,
            search=search,
            metrics=metrics,
            notifications=told,
        )
        view = HealthView(status=status, parts=parts, refusals=dict(cast(Refusals, state.refusals)))
        return Response(view, status_code=503 if relay is None else 200, headers=_retry(relay))


def _retry(relay: RelayHealth | None) -> dict[str, str]:
    return {} if relay else {"Retry-After": "5"}


async def _relay(stores: AsyncStores) -> RelayHealth | None:
    def script() -> Script[RelayHealth]:
        backlog = yield from outbox.backlog()
        return RelayHealth(
            waiting=backlog.waiting,
            oldest_seconds=round(backlog.oldest_seconds, 1),
            set_aside=backlog.set_aside,
            failing=[duty.name for duty in (yield from duties.every()) if duty.is_failing],
        )

    return await _in_time(stores, script())


async def _valkey(stores: AsyncStores) -> bool:
    try:
        return await asyncio.wait_for(stores.progress.alive(), PATIENCE_SECONDS)
    except TimeoutError:
        return False


async def _metrics(stores: AsyncStores) -> MetricsHealth | None:
    def script() -> Script[MetricsHealth]:
        late_after = stores.settings.metrics.late_after_seconds
        flows = yield from freshness.report(datetime.now(UTC), late_after)
        raised = yield from freshness.raised()
        return MetricsHealth(
            state=max((flow.state for flow in flows), key=list(PartitionState).index),
            waiting=sum(flow.waiting for flow in flows),
            oldest_seconds=round(max(flow.oldest_seconds for flow in flows), 1),
            alarms=[alarm.name for alarm in raised],
        )

    return await _in_time(stores, script())


async def _notifications(stores: AsyncStores) -> NotificationsHealth | None:
    def script() -> Script[NotificationsHealth]:
        fan_out = yield from notifications.lag()
        sending = yield from deliveries.lag()
        return NotificationsHealth(
            waiting=fan_out.waiting + sending.waiting + sending.sendings,
            oldest_seconds=round(max(fan_out.oldest_seconds, sending.oldest_seconds), 1),
            dead_letters=sending.dead_letters + fan_out.failed,
        )

    return await _in_time(stores, script())


async def _in_time(stores: AsyncStores, script: Query[T] | Script[T]) -> T | None:
    """What Postgres says, None when it does not say it soon."""
    try:
        return await asyncio.wait_for(stores.database.run(script), PATIENCE_SECONDS)
    except (StoreFailure, TimeoutError):
        return None


async def _search(stores: AsyncStores) -> SearchHealth | None:
    lag = await _in_time(stores, search_queue.lag())
    if lag is None:
        return None
    try:
        answers = await asyncio.wait_for(stores.search.reader.alive(), PATIENCE_SECONDS)
    except TimeoutError:
        answers = False
    return SearchHealth(
        state="ok" if answers else "away",
        waiting=lag.waiting,
        oldest_seconds=round(lag.oldest_seconds, 1),
        oldest_counts_seconds=round(lag.oldest_counts_seconds, 1),
        dead_letters=lag.dead_letters,
    )
