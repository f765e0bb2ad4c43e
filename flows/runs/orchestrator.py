"""Prefect's server, as the relay and the operator speak with it: each call raises PrefectUnavailable without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.events import ReceivedEvent
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from storage.errors import DarkroomError
from storage.settings import PrefectSettings

T = TypeVar("T")
_PAGE, _FIRINGS = 200, 50  # deployments and events: Prefect returns no more in one response
_SHUT = {401, 403}  # its secret was changed on one side only
_PASSING = {*_SHUT, 408, 429}  # says nothing of what was asked for


class PrefectUnavailable(DarkroomError):
    """Prefect does not respond, lets nobody in or has no time; nothing was done, and the same again may work later."""

    code = "prefect_unavailable"


class FlowPaused(DarkroomError):
    """An operator has paused the flow in Prefect; nothing was started."""

    code = "flow_paused"

    def __init__(self, flow: str) -> None:
        self.flow = flow
        super().__init__(f"{flow} is paused. It goes on with: darkroom resume {flow}")


class DeploymentMissing(DarkroomError):
    """Prefect does not know a flow's deployment; nothing was started."""

    code = "deployment_missing"

    def __init__(self, flow: str) -> None:
        self.flow = flow
        super().__init__(
            f"Prefect has no deployment {flow}. `darkroom up` makes it; elsewhere: python -m deployments.prepare"
        )


def open_prefect(settings: PrefectSettings) -> SyncPrefectClient:
    """A client that signs in. (Prefect's own `get_client` reads the environment instead.) The caller enters it."""
    return SyncPrefectClient(api=settings.api_url, auth_string=settings.auth.get_secret_value() or None)


class Orchestrator:
    """Prefect's server. A flow's deployment has the flow's name."""

    def __init__(self, prefect: SyncPrefectClient) -> None:
        self._prefect = prefect

    def start(
        self,
        flow: str,
        key: str,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> FlowRun:
        """A run of a flow, begun or found: one for each key. Raises DeploymentMissing, and FlowPaused when it is paused
        in Prefect, which itself starts what is asked for all the same."""
        try:
            # Read for each start and not kept: it says whether the flow is paused now, which Prefect itself does not
            # ask when it starts a run (PrefectHQ/prefect#14529).
            deployment = self._ask(lambda: self._prefect.read_deployment_by_name(f"{flow}/{flow}"))
        except ObjectNotFound as error:
            raise DeploymentMissing(flow) from error
        if deployment.paused:
            raise FlowPaused(flow)
        return self._ask(
            # Not `run_deployment`, which by default waits until the run has ended. The key is unique in a flow, for
            # ever: the same one returns the first run, also when that has failed.
            lambda: self._prefect.create_flow_run_from_deployment(
                deployment.id, parameters=dict(parameters or {}), idempotency_key=key, name=name, tags=tags
            )
        )

    def cancel(self, flow_run_id: UUID) -> None:
        """Ask a flow run to stop. Raises ObjectNotFound for one that Prefect has forgotten."""
        # Cancelling, not Cancelled: only then does the worker stop the process, and Prefect shows Cancelled once it is
        # gone.
        state = Cancelling(message="Cancelled by its owner")
        self._ask(lambda: self._prefect.set_flow_run_state(flow_run_id, state))

    def flow_run(self, flow_run_id: UUID) -> FlowRun | None:
        """A flow run; None for one that was deleted."""
        try:
            return self._ask(lambda: self._prefect.read_flow_run(flow_run_id))
        except ObjectNotFound:
            return None

    def flow_of(self, run: FlowRun) -> str:
        """The name of a run's flow."""
        return self._ask(lambda: self._prefect.read_flow(run.flow_id)).name

    def is_dead(self, flow_run_id: UUID) -> bool:
        """Whether a flow run has ended, or was deleted."""
        run = self.flow_run(flow_run_id)
        return run is None or (run.state is not None and run.state.is_final())

    def deployments(self) -> list[DeploymentResponse]:
        """Every deployment."""
        found: list[DeploymentResponse] = []
        while True:
            offset = len(found)
            page = self._ask(lambda: self._prefect.read_deployments(limit=_PAGE, offset=offset))  # noqa: B023 - called at once
            found += page
            if len(page) < _PAGE:
                return found

    def set_paused(self, deployment_id: UUID, paused: bool) -> None:
        """Pause a deployment in Prefect, or let it go on: a paused one's schedules make no runs."""
        change = self._prefect.pause_deployment if paused else self._prefect.resume_deployment
        self._ask(lambda: change(deployment_id))

    def firings(self, since: datetime) -> list[ReceivedEvent]:
        """The newest firings of automations since a time, the newest first."""
        wanted = EventFilter(
            event=EventNameFilter(name=["prefect.automation.triggered"]),
            occurred=EventOccurredFilter(since=since),  # pyright: ignore[reportArgumentType]
        )
        return self._ask(lambda: self._prefect.read_events(wanted, limit=_FIRINGS)).events

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (httpx.TransportError, httpx.TimeoutException) as error:
            raise PrefectUnavailable(
                f"Prefect does not respond at {self._prefect.api_url} ({type(error).__name__})."
            ) from error
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status >= 500 or status in _PASSING:
                advice = " Give both sides the same DARKROOM_PREFECT__AUTH." if status in _SHUT else ""
                raise PrefectUnavailable(f"Prefect returns {status}.{advice}") from error
            raise
