"""The effects of events where no test may ask Prefect: the rest of what the relay does needs none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from flows.relay.effects import Effects
from flows.runs.orchestrator import Orchestrator
from storage.stores import Stores


class NoOrchestrator(Orchestrator):
    """A Prefect server that must not be asked."""

    def __init__(self) -> None:
        """Without a client."""

    def _ask(self, call: Callable[[], Any]) -> NoReturn:
        raise AssertionError("This test has no Prefect server.")


def effects_without_prefect(stores: Stores) -> Effects:
    """Has the effects of events that start no flow run."""
    return Effects(stores, NoOrchestrator())
