"""A flow run that stays late, and an automation that fires for it."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Scheduled

from deployments.local.automations import late_runs_are_reported
from flows.runs.flow_names import SYNC
from flows.runs.orchestrator import open_prefect
from storage.settings import Settings

IMPATIENT, LATE_RUN = "darkroom: flow runs stay late, says a test", "late-run"


def leave_a_run_late(settings: Settings) -> None:
    """A run of a queue that no worker asks, and our automation for it with less patience: it fires 10 s later.

    Repeatable, so that a file before the one that waits for it can begin the wait.
    """
    automation = late_runs_are_reported(within=timedelta(seconds=10)).model_copy(update={"name": IMPATIENT})
    past = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=1))
    with open_prefect(settings.prefect) as client:
        if client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[LATE_RUN]))):
            return
        # The run goes with its deployment, which a test deletes; these two stay.
        if not client.read_automations_by_name(IMPATIENT):
            client.create_automation(automation)
        with suppress(ObjectAlreadyExists):
            client.create_work_queue("nobody", work_pool_name="light", is_paused=True)
        sync = client.read_deployment_by_name(f"{SYNC}/{SYNC}")
        client.create_flow_run_from_deployment(sync.id, state=past, name=LATE_RUN, work_queue_name="nobody")
