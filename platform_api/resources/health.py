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
from storage.postgres import outbox
from storage.postgres.outbox import Backlog
from storage.stores import AsyncStores

PATIENCE_SECONDS = 2.0
RELAY_LATE_SECONDS = 30.0


class RelayHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Committed events that still wait for their effect."""

    waiting: int
    oldest_seconds: float


class Parts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Each part: `ok` or `away`."""

    postgres: Annotated[str, Meta(examples=["ok"])]
    valkey: Annotated[str, Meta(examples=["ok"])]
    relay: RelayHealth | None


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
        guards=[Open("load balancers and `darkroom up` ask without a key; it tells nothing of anybody's")],
        responses={503: ResponseSpec(HealthView, generate_examples=False, description="Postgres is away")},
        summary="Health",
    )
    async def show(self, stores: AsyncStores, state: State) -> Response[HealthView]:
        """503 only when Postgres is away; anything else that is missing makes things slower, not wrong."""
        backlog, valkey = await asyncio.gather(_backlog(stores), _valkey(stores))
        relay = backlog and RelayHealth(waiting=backlog.waiting, oldest_seconds=round(backlog.oldest_seconds, 1))
        late = relay is not None and relay.oldest_seconds > RELAY_LATE_SECONDS
        status = "down" if backlog is None else "degraded" if late or not valkey else "ok"
        parts = Parts(postgres="ok" if backlog else "away", valkey="ok" if valkey else "away", relay=relay)
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
