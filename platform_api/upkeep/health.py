"""Whether the API and what it needs are well: for people, for load balancers, for whoever starts the process again."""

from __future__ import annotations

from typing import Any, cast

from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from platform_api.access.guards import Open
from platform_api.http.problems import RETRY_SECONDS, Refusals, can_return
from platform_api.upkeep.health_checks import KeptLook
from platform_api.upkeep.health_views import HealthView, Liveness, Parts, Readiness
from storage.records.metrics.freshness import PartitionState

RELAY_LATE_SECONDS = 30.0
SEARCH_LATE_SECONDS = 30.0
NOTIFICATIONS_LATE_SECONDS = 300.0
OK, DEGRADED, DOWN = "ok", "degraded", "down"
_OPENS = Open("load balancers and `darkroom up` ask without a key; it shows nobody's secrets")
# Uncounted: a refusal for too many requests would have a process that is well started again.
_LIVES = Open("whoever starts the process again asks without a key; it shows nothing", counted=False)


class Health(Controller):
    """Whether the API and what it needs are well."""

    path = "/health"
    tags = ("Health",)

    @get(
        "/",
        guards=[_OPENS],
        responses={
            **can_return(),
            503: ResponseSpec(HealthView, generate_examples=False, description="Postgres is unavailable"),
        },
        summary="Health",
    )
    async def show(self, state: State) -> Response[HealthView]:
        """How each part was a second ago at most. 503 only when Postgres is unavailable; anything else that is missing
        makes things slower, not wrong."""
        parts = await _look(state).get()
        status = status_of(parts)
        view = HealthView(status=status, parts=parts, refusals=dict(cast(Refusals, state.refusals)))
        return Response(view, **_said(status))

    @get(
        "/ready",
        guards=[_OPENS],
        responses={
            **can_return(),
            503: ResponseSpec(Readiness, generate_examples=False, description="Requests cannot be served now"),
        },
        summary="Whether requests can be served",
    )
    async def ready(self, state: State) -> Response[Readiness]:
        """503 while Postgres is unavailable, and from the moment at which the process was asked to stop."""
        # 503 from the first moment of a stop, so that a load balancer sends no more requests to it.
        status = DOWN if state.stopping.begun else status_of(await _look(state).get())
        return Response(Readiness(status=status), **_said(status))

    @get("/live", guards=[_LIVES], summary="Whether the process responds")
    async def live(self) -> Liveness:
        """200 whenever it does. No store is asked: starting a process again brings no store back."""
        return Liveness(status=OK)


def status_of(parts: Parts) -> str:
    """`ok`; `degraded` when something is slower or late; `down` when requests cannot be served."""
    if parts.postgres == "unavailable":
        return DOWN
    if parts.postgres != OK:
        return DEGRADED
    relay, search, metrics, notifications = parts.relay, parts.search, parts.metrics, parts.notifications
    late = relay is not None and (relay.oldest_seconds > RELAY_LATE_SECONDS or bool(relay.dead or relay.failing))
    behind = search is not None and (search.state != OK or search.oldest_seconds > SEARCH_LATE_SECONDS)
    stale = metrics is not None and (metrics.state == PartitionState.LATE or bool(metrics.alerts))
    undelivered = notifications is not None and notifications.oldest_seconds > NOTIFICATIONS_LATE_SECONDS
    return DEGRADED if late or behind or stale or undelivered or parts.valkey != OK else OK


def _look(state: State) -> KeptLook[Parts]:
    return cast(KeptLook[Parts], state.health)


def _said(status: str) -> dict[str, Any]:
    if status != DOWN:
        return {"status_code": 200}
    return {"status_code": 503, "headers": {"Retry-After": str(RETRY_SECONDS)}}
