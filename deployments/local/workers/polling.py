"""How often a worker asks Prefect's server for flow runs: every second while some may come, else now and then.

Prefect's server spends 14 % of a core on two workers that ask every second, three quarters of all that it does while
nothing happens: each question also writes that deployment and queue are polled. Asking every ten seconds, Prefect's
default, a job waits for five of them. So a worker listens to the outbox: where an event was committed, the relay makes
a flow run a moment later. What begins without an event (a schedule, Prefect's page) waits for the slower pace.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import psycopg

from storage.errors import StoreFailure
from storage.postgres.connection import Database
from storage.postgres.events.listening import OutboxListener
from storage.settings import PostgresSettings

ATTENTIVE_SECONDS = 10.0
"""So long after something happened the worker asks every second: the relay may be busy, or wait for Prefect."""
IDLE_SECONDS = 5.0
LISTEN_SECONDS = 5.0
RECONNECT_SECONDS = 5.0

log = logging.getLogger("darkroom.worker")


class PollingPace:
    """Whether it is time to ask. `wake` may be called from any thread; `clock` is a monotonic one, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attentive_until = clock() + ATTENTIVE_SECONDS
        self._asked_at = float("-inf")
        self.listening = False
        """Whether anybody would call `wake`. Without it every moment may be the one."""

    def wake(self) -> None:
        """Something happened that may make a flow run, or make room for one."""
        self._attentive_until = self._clock() + ATTENTIVE_SECONDS

    def is_due(self) -> bool:
        """Whether to ask now."""
        now = self._clock()
        return not self.listening or now < self._attentive_until or now - self._asked_at >= IDLE_SECONDS

    def asked(self) -> None:
        """Prefect is asked now: the next time is counted from here."""
        self._asked_at = self._clock()


@contextmanager
def woken_by_events(settings: PostgresSettings, pace: PollingPace) -> Generator[None]:
    """Inside, every event that is committed wakes the pace."""
    database, stopping = Database(settings), threading.Event()
    # Nobody waits for its end: it sees only every LISTEN_SECONDS that it should stop.
    listener = threading.Thread(target=_listen, args=(database, pace, stopping), name="outbox listener", daemon=True)
    listener.start()
    try:
        yield
    finally:
        stopping.set()
        database.close()


def _listen(database: Database, pace: PollingPace, stopping: threading.Event) -> None:
    # Connects again after a failure, until `stopping` is set.
    def wake() -> None:
        pace.listening = True
        pace.wake()

    listener = OutboxListener(database, wake)
    while not stopping.is_set():
        try:
            listener.listen(LISTEN_SECONDS)
        except (StoreFailure, psycopg.Error) as error:
            pace.listening = False
            log.warning("asking Prefect every second, without the outbox: %s", type(error).__name__)
            stopping.wait(RECONNECT_SECONDS)
    pace.listening = False
    listener.close()
