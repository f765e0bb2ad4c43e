"""Metrics for Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from litestar import Controller, Response, get
from litestar.datastructures import State

from platform_api.access.guards import Open
from platform_api.http.problems import can_return
from platform_api.metrics.prometheus import MEDIA_TYPE, FlowMetrics, exposed
from platform_api.upkeep.health_checks import KeptLook, in_time
from storage.postgres.connection import Script
from storage.postgres.events import duties, outbox
from storage.postgres.generation import backends, workflows
from storage.postgres.metrics import freshness
from storage.postgres.upkeep import last_backup
from storage.stores import AsyncStores


class Metrics(Controller):
    """Metrics of this process, and of flows."""

    path = "/metrics"
    tags = ("Health",)

    @get(
        "/",
        guards=[Open("Prometheus asks without a key; the metrics show nothing of anybody's")],
        media_type=MEDIA_TYPE,
        responses=can_return(),
        summary="Metrics",
    )
    async def show(self, state: State) -> Response[bytes]:
        """What this process has counted since it started, and how fresh counts were a second ago at most, in
        Prometheus' text format."""
        metrics = await cast(KeptLook[FlowMetrics], state.flow_metrics).get()
        return Response(exposed(state, metrics), media_type=MEDIA_TYPE)


async def flow_metrics(stores: AsyncStores) -> FlowMetrics:
    """What Postgres knows of work that other processes do; nothing when it does not say it soon."""

    def script() -> Script[FlowMetrics]:
        flows = yield from freshness.report(datetime.now(UTC), stores.settings.metrics.late_after_seconds)
        events, backup = (yield from outbox.backlog()), (yield from last_backup.newest())
        drawing = (yield from backends.list_all()), (yield from workflows.queue())
        return FlowMetrics(flows, (yield from duties.every()), events, backup, *drawing)

    return await in_time(stores, script()) or FlowMetrics()
