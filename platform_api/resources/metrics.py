"""Figures for Prometheus."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from litestar import Controller, Response, get
from litestar.datastructures import State

from platform_api.access import Open
from platform_api.figures import MEDIA_TYPE, FlowFigures, exposed
from storage.errors import StoreFailure
from storage.postgres import duties, freshness, outbox
from storage.postgres.connection import Script
from storage.stores import AsyncStores

PATIENCE_SECONDS = 2.0


class Metrics(Controller):
    """Figures of this process, and of flows."""

    path = "/metrics"
    tags = ("Health",)

    @get(
        "/",
        guards=[Open("Prometheus asks without a key; the figures tell nothing of anybody's", counted=False)],
        media_type=MEDIA_TYPE,
        summary="Figures",
    )
    async def show(self, stores: AsyncStores, state: State) -> Response[bytes]:
        """What this process has counted since it started, and how fresh counts are, in Prometheus' text format."""

        def script() -> Script[FlowFigures]:
            flows = yield from freshness.report(datetime.now(UTC), stores.settings.metrics.late_after_seconds)
            return FlowFigures(flows, (yield from duties.every()), (yield from outbox.backlog()))

        try:
            figures = await asyncio.wait_for(stores.database.run(script), PATIENCE_SECONDS)
        except (StoreFailure, TimeoutError):
            figures = FlowFigures()
        return Response(exposed(state, figures), media_type=MEDIA_TYPE)
