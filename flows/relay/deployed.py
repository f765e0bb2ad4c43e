"""Whether Prefect still has what was deployed into it: its database can be lost, and pages have a delete button."""

from __future__ import annotations

import logging

from flows.relay.drains import DRAINS
from flows.relay.effects import FLOWS
from flows.runs.orchestrator import Orchestrator
from storage.postgres.connection import Database
from storage.postgres.upkeep import flow_deployments

log = logging.getLogger("darkroom.relay")


def miss_deployments(database: Database, orchestrator: Orchestrator) -> list[str]:
    """Note what Prefect does not know; returns it. What the relay itself starts is wanted in any case."""
    present = [deployment.name for deployment in orchestrator.deployments()]
    # Missing at two looks before it is an alert: a deploy takes seconds, in which some are there and some are not.
    missing = database.run(lambda: flow_deployments.compare(present, [*FLOWS.values(), *DRAINS]))
    if missing:
        log.error("Prefect has no deployment of %s", ", ".join(missing))
    return missing
