"""What draws generations: what each backend can do, and whether it responds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from msgspec import Meta

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Requires
from platform_api.http.problems import can_return
from platform_api.jobs.job_views import NOUNS
from storage.postgres.generation import backends
from storage.records.accounts.accounts import Scope
from storage.records.generation.circuits import BackendFault, BackendRow, CircuitState, circuit_of
from storage.records.jobs.jobs import JobKind


class BackendView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A backend, as the run that draws last found it."""

    name: Annotated[str, Meta(examples=["local"])]
    version: str
    capabilities: Annotated[dict[str, Any], Meta(description="What it can draw, as it says of itself.")]
    circuit: Annotated[
        CircuitState, Meta(description="open: it is left alone after failures; half_open: the next drawing tries it.")
    ]
    failures: Annotated[int, Meta(description="In a row.")]
    reason: Annotated[
        BackendFault | None,
        Meta(description="Of the last failure; the log of the run says more."),
    ]
    drawing: Annotated[int, Meta(description="Steps that it draws now.")]
    responded_at: datetime | None
    looked_at: Annotated[datetime, Meta(description="When a run last asked; none runs while nothing is drawn.")]


class BackendList(msgspec.Struct, frozen=True, kw_only=True):
    """Every backend that a run has looked at, by name."""

    items: list[BackendView]


class GenerationBackends(Controller):
    """What draws."""

    path = f"/{NOUNS[JobKind.GENERATION]}/backends"
    tags = ("Generations",)

    @get("/", guards=[Requires(Scope.JOBS_READ)], responses=can_return(401, 403), summary="What draws generations")
    async def list_backends(self, stores: AppStores) -> BackendList:
        """Their versions, capabilities and health. Empty until the first generation was drawn."""
        rows = await stores.database.run(backends.list_all())
        now = datetime.now(UTC)
        return BackendList(items=[backend_view(row, now) for row in rows])


def backend_view(row: BackendRow, now: datetime) -> BackendView:
    """A backend as clients see it at a moment."""
    return BackendView(
        name=row.name,
        version=row.version,
        capabilities=row.capabilities,
        circuit=circuit_of(row.failures, row.failed_at, now),
        failures=row.failures,
        # That of a failure long ago is no reason any more.
        reason=row.reason if row.failures else None,
        drawing=row.drawing,
        responded_at=row.responded_at,
        looked_at=row.looked_at,
    )
