"""How fresh what flows keep up to date is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from litestar import Controller, get
from msgspec import Meta

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Requires
from platform_api.http.problems import can_return
from storage.postgres.connection import Script
from storage.postgres.metrics import freshness
from storage.postgres.upkeep import alerts, pauses
from storage.records.accounts.accounts import Scope
from storage.records.metrics.freshness import PartitionState, Switch


class PartitionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One UTC day of a flow: finished, still in time, or late."""

    day: date
    state: PartitionState
    finished_at: datetime | None
    expected_by: datetime


class FlowView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A flow. It is late when one of its days is, or when what waits for it is too old."""

    flow: Annotated[str, Meta(examples=["roll-up-metrics"])]
    state: PartitionState
    paused_at: Annotated[datetime | None, Meta(description="Since when an operator has paused it; it is late as ever.")]
    waiting: Annotated[int, Meta(description="Batches that no run has taken.")]
    oldest_seconds: Annotated[float, Meta(description="Age of the oldest of them.")]
    partitions: Annotated[list[PartitionView], Meta(description="The last 30 days, newest first.")]


class AlertView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An alert that is raised now."""

    name: Annotated[str, Meta(examples=["late roll-up-metrics"])]
    detail: str
    raised_at: datetime


class PauseView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A flow that an operator has paused, by `darkroom pause` or in Prefect's pages; what it would do waits."""

    flow: Annotated[str, Meta(examples=["sync-search-index"])]
    paused_in: Switch
    paused_at: datetime


class FreshnessView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is expected beside what is finished, and what the relay has raised an alert for."""

    now: datetime
    flows: list[FlowView]
    paused: Annotated[list[PauseView], Meta(description="Every flow that is paused, also those without days.")]
    alerts: list[AlertView]


class Freshness(Controller):
    """How fresh counts are."""

    path = "/freshness"
    tags = ("Activity",)

    @get("/", guards=[Requires(Scope.ACTIVITY_READ)], responses=can_return(401, 403), summary="Freshness")
    async def show(self, stores: AppStores) -> FreshnessView:
        """Every flow's days: when each was finished last, and when it is expected to be."""
        now = datetime.now(UTC)

        def script() -> Script[FreshnessView]:
            flows = yield from freshness.report(now, stores.settings.metrics.late_after_seconds)
            raised = yield from alerts.raised()
            return FreshnessView(
                now=now,
                paused=msgspec.convert((yield from pauses.every()), list[PauseView], from_attributes=True),
                flows=msgspec.convert(flows, list[FlowView], from_attributes=True),
                alerts=msgspec.convert(raised, list[AlertView], from_attributes=True),
            )

        return await stores.database.run(script)
