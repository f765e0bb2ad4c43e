"""Whether the door and what it needs are well."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta

from platform_api.access import Open
from platform_api.problems import Refusals
from storage.errors import StoreUnavailable
from storage.postgres import outbox, search_queue
from storage.postgres.outbox import Backlog
from storage.stores import AsyncStores

PATIENCE_SECONDS = 2.0
RELAY_LATE_SECONDS = 30.0
SEARCH_LATE_SECONDS = 30.0


class RelayHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Committed events that still wait for their effect."""

    waiting: int
    oldest_seconds: float


class SearchHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether searches are answered, and how far they are behind the catalogue. Ages are in seconds."""

    state: Annotated[str, Meta(examples=["ok"])]
    waiting: Annotated[int, Meta(description="Changed rows that searches do not show yet.")]
    oldest_seconds: Annotated[float, Meta(description="Age of the oldest change that waits, counts aside.")]
    oldest_counts_seconds: Annotated[float, Meta(description="Age of the oldest change of counts that waits.")]
    dead_letters: Annotated[int, Meta(description="Rows that could not be indexed.")]


class Parts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Each part: `ok` or `away`."""

    postgres: Annotated[str, Meta(examples=["ok"])]
    valkey: Annotated[str, Meta(examples=["ok"])]
    relay: RelayHealth | None
    search: SearchHealth | None


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
        backlog, valkey, search = await asyncio.gather(_backlog(stores), _valkey(stores), _search(stores))
        relay = backlog and RelayHealth(waiting=backlog.waiting, oldest_seconds=round(backlog.oldest_seconds, 1))
        late = relay is not None and relay.oldest_seconds > RELAY_LATE_SECONDS
        behind = search is not None and (search.state != "ok" or search.oldest_seconds > SEARCH_LATE_SECONDS)
        status = "down" if backlog is None else "degraded" if late or behind or not valkey else "ok"
        parts = Parts(
            postgres="ok" if backlog else "away", valkey="ok" if valkey else "away", relay=relay, search=search
        )
        view = HealthView(status=status, parts=parts, refusals=dict(cast(Refusals, state.refusals)))
        return Response(view, status_code=503 if backlog is None else 200, headers=_retry(backlog))


def _retry(backlog: Backlog | None) -> dict[str, str]:
    return {} if backlog else {"Retry-After": "5"}


async def _backlog(stores: AsyncStores) -> Backlog | None:
    try:
        return await asyncio.wait_for(stores.database.run(outbox.backlog()), PATIENCE_SECONDS)
    except (StoreUnavailable, TimeoutError):
        return None


async def _valkey(stores: AsyncStores) -> bool:
    try:
        return await asyncio.wait_for(stores.progress.alive(), PATIENCE_SECONDS)
    except TimeoutError:
        return False


async def _search(stores: AsyncStores) -> SearchHealth | None:
    try:
        lag = await asyncio.wait_for(stores.database.run(search_queue.lag()), PATIENCE_SECONDS)
    except (StoreUnavailable, TimeoutError):
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
