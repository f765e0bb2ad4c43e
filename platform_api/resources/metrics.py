"""Figures for Prometheus."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.datastructures import State

from platform_api.access import Open
from platform_api.figures import MEDIA_TYPE, exposed


class Metrics(Controller):
    """Figures of this process."""

    path = "/metrics"
    tags = ("Health",)

    @get(
        "/",
        guards=[Open("Prometheus asks without a key; the figures tell nothing of anybody's", counted=False)],
        media_type=MEDIA_TYPE,
        summary="Figures",
    )
    async def show(self, state: State) -> Response[bytes]:
        """What this process has counted since it started, in Prometheus' text format."""
        return Response(exposed(state), media_type=MEDIA_TYPE)
