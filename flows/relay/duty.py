"""One duty of the relay in a thread of its own: repeated, more slowly while it fails, its last success noted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from storage.backoff import pause_after
from storage.errors import DarkroomError, StoreFailure
from storage.postgres.connection import Database
from storage.postgres.events import duties

log = logging.getLogger("darkroom.relay")

LOOK_SECONDS = 30.0
"""How often a duty looks at what changes rarely, or at what costs Prefect a query."""

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 15.0
BREATH_SECONDS = 0.01
NOTED_SECONDS = 10.0
"""Successes are noted this often: a duty that has nothing to do writes next to nothing."""


@dataclass(frozen=True)
class Duty:
    """What is done again and again. `iterate` returns whether there is more to do at once; `waking` ends a wait early;
    `abandon` is called when the relay ends in the middle of an iteration, from another thread; `close` after the last
    one, from its own."""

    name: str
    every_seconds: float
    iterate: Callable[[], bool]
    waking: threading.Event = field(default_factory=threading.Event)
    abandon: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


class DutyThread(threading.Thread):
    """A duty that is done until `stopping`. Whatever it raises, it goes on, and no other duty is affected.

    A daemon: one that hangs does not keep the relay from ending.
    """

    def __init__(self, duty: Duty, database: Database, stopping: threading.Event) -> None:
        super().__init__(name=duty.name, daemon=True)
        self._duty, self._database, self._stopping = duty, database, stopping
        self._failures = 0
        self._noted_at = 0.0

    def run(self) -> None:
        """Repeat the duty until the relay stops."""
        while not self._stopping.is_set():
            # Before the iteration: what is announced while it runs ends the wait behind it.
            self._duty.waking.clear()
            try:
                more = self._duty.iterate()
            except Exception as error:  # noqa: BLE001 - one duty's failure is its own: it is noted, and tried again
                # Not storage.backoff's `retried`: its sleep would not end with the relay.
                self._stopping.wait(self._fail(error))
            else:
                self._succeed()
                self._duty.waking.wait(BREATH_SECONDS if more else self._duty.every_seconds)
        self._duty.close()

    def _succeed(self) -> None:
        now = time.monotonic()
        # A success after failures is noted at once, since it ends an alert.
        if self._failures or now - self._noted_at >= NOTED_SECONDS:
            try:
                self._database.run(duties.succeeded(self._duty.name))
            except (StoreFailure, psycopg.Error) as error:
                log.warning("%s: its success was not noted: %s: %s", self._duty.name, type(error).__name__, error)
                return
            except Exception:
                log.exception("%s: its success could not be noted", self._duty.name)
                return
            self._noted_at = now
        self._failures = 0

    def _fail(self, error: Exception) -> float:
        """Note a failure; returns for how many seconds to wait."""
        self._failures += 1
        pause = pause_after(self._failures, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        expected = isinstance(error, DarkroomError | psycopg.Error)
        name = error.code if isinstance(error, DarkroomError) else type(error).__name__
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "%s: waiting %.0f s: %s: %s",
            *(self._duty.name, pause, name, error),
            # An outage is one line, a fault of ours is a traceback.
            exc_info=None if expected else error,
        )
        try:
            self._database.run(duties.failed(self._duty.name, f"{name}: {error}"))
        except (StoreFailure, psycopg.Error) as failure:
            log.warning("%s: its failure was not noted: %s: %s", self._duty.name, type(failure).__name__, failure)
        except Exception:
            log.exception("%s: its failure could not be noted", self._duty.name)
        return pause


def once(act: Callable[[], object]) -> Callable[[], bool]:
    """An iteration that does all there is to do at once."""

    def iterate() -> bool:
        act()
        return False

    return iterate
