"""The duty dead-flow-runs: jobs whose flow run ended in Prefect before it claimed them get another attempt."""

from __future__ import annotations

from flows.jobs.sweeps import replace_dead_flow_runs
from flows.relay.duty import LOOK_SECONDS, Duty, once
from flows.runs.orchestrator import Orchestrator
from storage.stores import Stores


def duty(stores: Stores, orchestrator: Orchestrator) -> Duty:
    """Looks at the flow runs of jobs that wait for too long."""
    settings = stores.settings.jobs
    return Duty(
        "dead-flow-runs", LOOK_SECONDS, once(lambda: replace_dead_flow_runs(stores.database, orchestrator, settings))
    )
