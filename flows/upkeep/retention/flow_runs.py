"""What becomes of Prefect's own rows. Its server deletes them, in batches of its own; here it is only looked whether it
does: `PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED` must hold `flow_runs`."""

from __future__ import annotations

from datetime import timedelta

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterEndTime

from flows.upkeep.retention.sweep import Sweep

GRACE = timedelta(days=2)
"""Prefect's server looks every hour, and may have been unavailable."""


def watch_flow_runs(sweep: Sweep, setting: str) -> None:
    """Say so when Prefect keeps runs that should be gone."""
    before = sweep.moment - sweep.age(setting) - GRACE
    ended = FlowRunFilter(end_time=FlowRunFilterEndTime(before_=before))  # pyright: ignore[reportArgumentType]
    try:
        with get_client(sync_client=True) as prefect:
            old = prefect.read_flow_runs(flow_run_filter=ended, limit=1)
    # A note and no fault: nothing is deleted here, so nothing is left undone.
    except httpx.HTTPError as error:
        sweep.removed.note = f"Prefect did not respond ({type(error).__name__})"
        return
    sweep.removed.note = "deleted by Prefect's server, every hour"
    if old:
        sweep.removed.note = (
            f"Prefect still has {old[0].name}, which ended {old[0].end_time:%Y-%m-%d}. Start its server with "
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs"
        )
