"""The duties of flows that empty a queue, one each: a run is started when something is due and nobody drains."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from flows.relay.duty import Duty, once
from flows.runs.flow_names import DELIVER, DRAW, FAN_OUT, JOB_FLOWS, SYNC
from flows.runs.orchestrator import FlowPaused, Orchestrator
from storage.errors import NotFound
from storage.postgres.connection import Database, Script
from storage.postgres.events import drain_wakeups
from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.postgres.notifications import deliveries, notifications
from storage.postgres.search import search_queue
from storage.postgres.upkeep import pauses
from storage.records.events.events import JobCancelled, JobCancelling
from storage.records.metrics.freshness import Switch
from storage.stores import Stores

DRAINS: dict[str, Callable[[str], Script[int | None]]] = {
    SYNC: search_queue.drain_wanted,
    FAN_OUT: notifications.fan_out_wanted,
    DELIVER: deliveries.wanted,
    DRAW: workflows.wanted,
}
"""Each is deployed under its own name; with it goes what says that a run of it is wanted."""


def duty(stores: Stores, orchestrator: Orchestrator, flow: str) -> Duty:
    """Starts the runs of one flow in DRAINS, whose name it has."""
    poll = stores.settings.jobs.relay_poll_seconds
    return Duty(flow, poll, once(lambda: wake_drain(stores.database, orchestrator, flow)))


def own_run(database: Database, event: JobCancelling | JobCancelled) -> UUID | None:
    """The flow run to stop for a job that was cancelled; None where it carries out others, too. Raises StoreFailure."""
    if event.flow_run_id is None:
        return None
    try:
        kind = database.run(jobs.get(event.job_id)).kind
    except NotFound:
        return None  # nothing of it is left to stop
    # An API of an earlier release still names the run of a generation.
    return None if JOB_FLOWS[kind] in DRAINS else event.flow_run_id


def wake_drain(database: Database, orchestrator: Orchestrator, flow: str) -> UUID | None:
    """Start a run of a flow in DRAINS when something is due, nobody drains and it is not paused; returns the run.

    The key has a number that the run itself raises when it begins, so asking again starts no second one.
    Raises DeploymentMissing, PrefectUnavailable, StoreFailure.
    """
    number = database.run(DRAINS[flow](flow))
    if number is None:
        return None
    key = f"{flow}:{number}"
    try:
        run = orchestrator.start(flow, key=key, name=key)
    # Noted as a row, so that the next look stops at Postgres.
    except FlowPaused as error:
        database.run(pauses.add(error.flow, Switch.PREFECT))
        return None
    if run.state is not None and run.state.is_final():
        # It died before it began, and Prefect returns a dead run for its key.
        database.run(drain_wakeups.advance(flow))
    return run.id
