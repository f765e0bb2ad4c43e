"""The duty pauses: what is paused in Postgres and what is paused in Prefect's pages are kept in line."""

from __future__ import annotations

from flows.relay.duty import LOOK_SECONDS, Duty, once
from flows.runs.orchestrator import Orchestrator
from flows.upkeep.pausing import follow
from storage.stores import Stores


def duty(stores: Stores, orchestrator: Orchestrator) -> Duty:
    """Compares both sides."""
    return Duty("pauses", LOOK_SECONDS, once(lambda: follow(stores.database, orchestrator)))
