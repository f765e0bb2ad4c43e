"""The duty deployments: notes what Prefect has lost of what was deployed into it.

Prefect's database can be lost, and its pages have a delete button.
"""

from __future__ import annotations

import logging

from flows.relay.drains import DRAINS
from flows.relay.duty import LOOK_SECONDS, Duty, once
from flows.runs.flow_names import JOB_FLOWS
from flows.runs.orchestrator import Orchestrator
from storage.postgres.connection import Database
from storage.postgres.upkeep import flow_deployments
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")


def duty(stores: Stores, orchestrator: Orchestrator) -> Duty:
    """Compares what Prefect has with what was deployed."""
    return Duty("deployments", LOOK_SECONDS, once(lambda: miss_deployments(stores.database, orchestrator)))


def miss_deployments(database: Database, orchestrator: Orchestrator) -> list[str]:
    """Note what Prefect does not know; returns it. What the relay itself starts is wanted in any case."""
    present = [deployment.name for deployment in orchestrator.deployments()]
    # Missing at two looks before it is an alert: a deploy takes seconds, in which some are there and some are not.
    wanted = list(dict.fromkeys([*JOB_FLOWS.values(), *DRAINS]))
    missing = database.run(lambda: flow_deployments.compare(present, wanted))
    if missing:
        log.error("Prefect has no deployment of %s", ", ".join(missing))
    return missing
