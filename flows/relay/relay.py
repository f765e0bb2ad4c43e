"""The relay: every duty it has, each in its own thread with clients of its own, until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import psycopg
from psycopg.rows import DictRow

from flows.jobs.sweeps import publish_due, replace_dead_flow_runs, sweep_silent_jobs
from flows.relay import alerts
from flows.relay.deployed import miss_deployments
from flows.relay.drains import DRAINS, wake_drain
from flows.relay.duties import Duty, DutyThread
from flows.relay.effects import NEED_PREFECT, Effects
from flows.runs.orchestrator import Orchestrator
from flows.upkeep.pausing import follow
from storage.errors import StoreFailure
from storage.postgres.connection import Database
from storage.postgres.events import duties as reports
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")

LISTEN_SECONDS = 1.0
"""So long a relay that stops waits for its listening to end."""
SWEEP_SECONDS = 5.0
LOOK_SECONDS = 30.0
ALERT_SECONDS = 30.0
STOP_SECONDS = 3.0
"""All duties together have so long to come to the end of their turns."""


class Relay:
    """One relay. Several may run: each event is claimed by one of them, and so is each job that is swept."""

    def __init__(self, stores: Stores, connect: Callable[[], Orchestrator]) -> None:
        """`connect` returns a client of Prefect's server; each duty that needs one gets its own, so that none waits for
        another's answer."""
        self._stores, self._connect = stores, connect
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until told to stop."""
        duties = self.duties()
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
                log.info("%s was in the middle of a turn when the relay stopped", duty.name)
                duty.abandon()

    def duties(self) -> list[Duty]:
        """Everything that a relay does."""
        database, jobs = self._stores.database, self._stores.settings.jobs
        poll, sweep = jobs.relay_poll_seconds, min(SWEEP_SECONDS, jobs.silent_after_seconds / 4)
        drains = [self._drain(flow, poll) for flow in DRAINS]

        def nudge_drains() -> None:
            for drain in drains:
                drain.waking.set()

        def sound() -> list[str]:
            settings = self._stores.settings
            late_after = settings.metrics.late_after_seconds, settings.backup.late_after_days
            return alerts.sound(database, datetime.now(UTC), *late_after)

        in_prefect = Effects(self._stores, self._connect(), self.stopping, only=NEED_PREFECT)
        effects = Effects(self._stores, self._connect(), self.stopping, nudge_drains, without=NEED_PREFECT)
        acting = [
            Duty("flow-runs", poll, in_prefect.turn, abandon=in_prefect.release),
            Duty("effects", poll, effects.turn, abandon=effects.release),
        ]
        firings = alerts.Firings(database, self._connect())
        flow_runs, pauses, deployed = self._connect(), self._connect(), self._connect()
        return [
            *acting,
            Duty("listening", 0.0, Listening(database, [duty.waking for duty in acting]).turn),
            *drains,
            Duty("silent-jobs", sweep, _once(lambda: sweep_silent_jobs(database, jobs))),
            Duty("scheduled-publishing", SWEEP_SECONDS, _once(lambda: publish_due(database))),
            Duty("dead-flow-runs", LOOK_SECONDS, _once(lambda: replace_dead_flow_runs(database, flow_runs, jobs))),
            Duty("pauses", LOOK_SECONDS, _once(lambda: follow(database, pauses))),
            Duty("deployments", LOOK_SECONDS, _once(lambda: miss_deployments(database, deployed))),
            Duty("alerts", ALERT_SECONDS, _once(sound)),
            Duty("prefect-alerts", LOOK_SECONDS, _once(lambda: firings.hear(datetime.now(UTC)))),
        ]

    def _drain(self, flow: str, poll: float) -> Duty:
        orchestrator = self._connect()
        return Duty(flow, poll, _once(lambda: wake_drain(self._stores.database, orchestrator, flow)))

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


class Listening:
    """Hears of new events the moment they are committed, and wakes those who act on them."""

    def __init__(self, database: Database, wakings: Sequence[threading.Event]) -> None:
        self._database, self._wakings = database, wakings
        self._connection: psycopg.Connection[DictRow] | None = None

    def turn(self) -> bool:
        """Listen for a few seconds, or until something was heard. Raises StoreFailure, psycopg.Error."""
        if self._connection is None:
            self._connection = self._database.connect()
            self._connection.execute("listen outbox")
            self._wake()  # what came meanwhile
        try:
            for _ in self._connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                self._wake()
        except psycopg.Error:
            self._connection.close()
            self._connection = None
            raise
        return False

    def _wake(self) -> None:
        for waking in self._wakings:
            waking.set()


def _once(act: Callable[[], object]) -> Callable[[], bool]:
    """A turn that does all there is to do at once."""

    def turn() -> bool:
        act()
        return False

    return turn
