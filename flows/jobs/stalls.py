"""The stall limit: a job in which nothing is done for too long fails by name, whatever its main thread hangs in.

A thread watches the signs of progress (`flows.runs.liveness`). Past the limit it logs the stacks of all threads and
raises JobStalled in the main thread, which then ends as for any other error. Where that does not help, because the main
thread is in native code that no signal ends, `give_up` writes the job's end and the process leaves. Code that holds
Python's lock meanwhile lets no thread run at all: then a timer of faulthandler, which needs no lock, prints the stacks
and ends the process, and the job is found silent.

Time is counted by the monotonic clock, and only while the watchdog itself gets time to run: a machine that sleeps, or a
process that is held by a debugger, is not stalled.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType

from flows.runs.liveness import PROCESS
from flows.runs.run_logs import run_logger
from storage.errors import JobStalled
from storage.records.jobs.jobs import Progress
from storage.settings import variable_of

_log = partial(run_logger, "darkroom.stalls")

GRACE_SECONDS = 30.0
"""How long the main thread has to receive the error before the process leaves."""
ENDING_SECONDS = 300.0
"""How long it then may do nothing while it ends: it keeps its metrics, and ends its run in MLflow and other trackers,
which takes up to a minute each. Signs of progress, as of a store that is tried again, start this over."""
LOCK_SECONDS = 120.0
"""How much longer than limit and grace Python's lock may be held before faulthandler ends the process."""
EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h
STANDARD_ERROR = 2


@dataclass(frozen=True)
class StallLimit:
    """What is watched: the limit in seconds, how far the work is, and what is to be done when nothing else helps.

    give_up: called in the watchdog's thread before the process leaves; may raise, which is logged.
    """

    seconds: float
    progress: Callable[[], Progress]
    give_up: Callable[[JobStalled], None]


@contextmanager
def stopped_when_stalled(limit: StallLimit) -> Generator[None]:
    """Watch the block, from its main thread. Raises JobStalled in it."""
    watchdog = Watchdog(limit)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class Watchdog:
    """The thread that watches one block."""

    def __init__(self, limit: StallLimit) -> None:
        self._limit = limit
        self._tick = min(5.0, limit.seconds / 10)
        self._ended = threading.Event()
        self._stalled: JobStalled | None = None
        self._received = False
        self._main = threading.main_thread().ident or 0
        # Signals are received by the main thread alone, and only it may say how.
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._previous: object = None
        run = copy_context().run  # what it logs belongs to what is watched
        self._thread = threading.Thread(target=lambda: run(self._watch), name="stall-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._interrupts:
            self._previous = signal.signal(signal.SIGUSR1, self._interrupt)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join(timeout=5)
        faulthandler.cancel_dump_traceback_later()
        if self._interrupts:
            signal.signal(signal.SIGUSR1, self._previous)  # pyright: ignore[reportArgumentType] - as it was returned

    def _watch(self) -> None:
        seen, idle, before = PROCESS.count, 0.0, time.monotonic()
        while True:
            self._watch_the_lock()
            if self._ended.wait(self._tick):
                return
            now = time.monotonic()
            if PROCESS.count != seen:
                seen, idle = PROCESS.count, 0.0
            else:
                # No more than two ticks: what was longer, this thread was held up as well.
                idle += min(now - before, 2 * self._tick)
            before = now
            if idle >= self._limit.seconds:
                self._end(idle)
                return

    def _watch_the_lock(self) -> None:
        # Set again at each tick, so it fires only when this thread has got no time to run for so long.
        faulthandler.dump_traceback_later(
            self._limit.seconds + GRACE_SECONDS + LOCK_SECONDS, exit=True, file=STANDARD_ERROR
        )

    def _end(self, idle: float) -> None:
        error = stall_of(self._limit.progress(), idle, self._limit.seconds)
        _log().error("%s\n%s", error, stacks())
        if self._ended.is_set():  # it has ended while its stacks were printed
            return
        if self._interrupts:
            self._stalled = error
            signal.pthread_kill(self._main, signal.SIGUSR1)
            if self._ends():
                return
        _log().error("the main thread does not respond: this process ends now")
        try:
            self._limit.give_up(error)
        except Exception:  # noqa: BLE001 - whatever it is, the process has to leave
            _log().exception("the end of the job was not written; the relay will find it silent")
        logging.shutdown()
        os._exit(EXIT_STATUS)

    def _ends(self) -> bool:
        """Whether the main thread ends by the error that was sent to it, before it has done nothing for too long."""
        seen, quiet = PROCESS.count, 0.0
        while quiet < (ENDING_SECONDS if self._received else GRACE_SECONDS):
            self._watch_the_lock()
            if self._ended.wait(self._tick):
                return True
            quiet = quiet + self._tick if PROCESS.count == seen or not self._received else 0.0
            seen = PROCESS.count
        return False

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._stalled is not None:
            self._received = True
            raise self._stalled


def stall_of(progress: Progress, idle_seconds: float, limit_seconds: float) -> JobStalled:
    """The error for work that has stood still for so long, past a limit."""
    since = datetime.now(UTC) - timedelta(seconds=idle_seconds)
    place = f" after {progress.step} of {progress.total}" if progress.total else ""
    return JobStalled(
        f"Nothing was done for {limit_seconds / 60:.3g} minutes in the phase '{progress.phase}'{place}, since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC. The flow run's log in Prefect has the stacks of all threads. Retry the job: "
        "it goes on from its last checkpoint. On a machine that needs longer for one piece of work raise "
        f"{variable_of('jobs', 'stall_minutes')}."
    )


def stacks() -> str:
    """The stacks of all threads: files, lines and functions, no values."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
