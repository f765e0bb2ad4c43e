"""The relay: every duty it has, each in its own thread with clients of its own, until it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from flows.relay import (
    alerts,
    dead_flow_runs,
    deployments,
    drains,
    effects,
    flow_runs,
    listener,
    pauses,
    prefect_alerts,
    scheduled_publishing,
    silent_jobs,
)
from flows.relay.drains import DRAINS
from flows.relay.duty import Duty, DutyThread
from flows.runs.orchestrator import Orchestrator
from storage.errors import StoreFailure
from storage.postgres.events import duties as reports
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")

STOP_SECONDS = 3.0
"""All duties together have so long to come to the end of their iterations."""


class Relay:
    """One relay. Several may run: each event is claimed by one of them, and so is each job that is swept."""

    def __init__(self, stores: Stores, connect: Callable[[], Orchestrator]) -> None:
        """`connect` returns a client of Prefect's server; each duty that needs one gets its own, so that none waits for
        another's response."""
        self._stores, self._connect = stores, connect
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until stopped."""
        duties = self.duties()
        # Before the threads: a duty that is noted must be known, and one that never succeeds counts as late from here
        # on.
        self._begin(duties)
        threads = [DutyThread(duty, self._stores.database, self.stopping) for duty in duties]
        for thread in threads:
            thread.start()
        self.stopping.wait()
        for duty in duties:
            duty.waking.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for duty, thread in zip(duties, threads, strict=True):
            if thread.is_alive():
                log.info("%s was in the middle of an iteration when the relay stopped", duty.name)
                # From this thread, as its own may hang; what it has claimed is due again for the next relay.
                duty.abandon()

    def duties(self) -> list[Duty]:
        """Everything that a relay does: each is a file of this folder, and a line here."""
        stores, connect = self._stores, self._connect
        draining = [drains.duty(stores, connect(), flow) for flow in DRAINS]
        acting = [
            flow_runs.duty(stores, connect(), self.stopping, lambda: _wake(draining)),
            effects.duty(stores, connect(), self.stopping, lambda: _wake(draining)),
        ]
        return [
            *acting,
            listener.duty(stores.database, acting),
            *draining,
            silent_jobs.duty(stores),
            scheduled_publishing.duty(stores),
            dead_flow_runs.duty(stores, connect()),
            pauses.duty(stores, connect()),
            deployments.duty(stores, connect()),
            alerts.duty(stores),
            prefect_alerts.duty(stores, connect()),
        ]

    def _begin(self, duties: Sequence[Duty]) -> None:
        paces = {duty.name: duty.every_seconds for duty in duties}
        while not self.stopping.is_set():
            try:
                self._stores.database.run(reports.begin(paces))
            except StoreFailure as error:
                log.warning("the relay begins later: %s: %s", error.code, error)
                self.stopping.wait(1.0)
            else:
                return


def _wake(duties: Sequence[Duty]) -> None:
    for duty in duties:
        duty.waking.set()
