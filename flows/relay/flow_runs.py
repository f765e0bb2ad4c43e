"""The duty flow-runs: events whose effect is Prefect's work; the others go on while it is unavailable."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flows.relay.duty import Duty
from flows.relay.effects import NEED_PREFECT, Effects
from flows.runs.orchestrator import Orchestrator
from storage.stores import Stores


def duty(stores: Stores, orchestrator: Orchestrator, stopping: threading.Event, acted: Callable[[], None]) -> Duty:
    """Starts and cancels the flow runs of jobs until `stopping`; see Effects for `acted`."""
    effects = Effects(stores, orchestrator, stopping, acted, only=NEED_PREFECT)
    return Duty("flow-runs", stores.settings.jobs.relay_poll_seconds, effects.iterate, abandon=effects.release)
