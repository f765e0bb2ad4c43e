"""The circuits and the load of backends, shared by the threads of one process; their rows are for people and for the
next process.

One process draws at a time, so its own figures are the truth while it runs: a Postgres that is unavailable costs rows,
no drawing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from flows.generation.backends.protocol import BackendFacts
from storage.errors import StoreFailure
from storage.postgres.connection import Database, Query
from storage.postgres.generation import backends
from storage.records.generation.circuits import (
    BackendFault,
    BackendRow,
    CircuitState,
    circuit_after,
    seconds_between,
)

T = TypeVar("T")
log = logging.getLogger("darkroom.backends")
_WORDS = {
    BackendFault.NO_RESPONSE: "It did not respond to an earlier run.",
    BackendFault.DRAWING_FAILED: "It broke what an earlier run drew.",
}


@dataclass
class _State:
    """failed_at: by the clock of circuits. unheard: its last failure was that it did not respond, and it has not
    responded since. proved: it has drawn a step since its last failure: nobody waits for its first picture."""

    failures: int = 0
    failed_at: float | None = None
    failed_clock: float = float("-inf")
    reason: str = ""
    unheard: bool = True
    responded: bool = False
    proved: bool = False
    trying: bool = False
    drawings: int = 0
    pictures: int = 0
    unwritten_success: bool = False


class Visit:
    """One drawing at one backend, from before it is asked what it lacks until it has ended. End it: `with`."""

    def __init__(self, health: BackendHealth, name: str, pictures: int, *, is_trial: bool) -> None:
        self._health, self.name, self.pictures, self.is_trial = health, name, pictures, is_trial
        self.began = time.monotonic()

    def heard(self) -> None:
        """A step has been drawn: others may be drawn there while its first picture is."""
        if self.is_trial:
            self._health.proved(self)

    def drawn(self) -> None:
        """A good picture has come: the backend is well."""
        self.pictures -= 1
        self._health.succeeded(self)

    def failed(self, error: Exception, *, unheard: bool) -> None:
        """The backend did not respond (`unheard`), or broke what it drew."""
        self._health.failed(self.name, str(error), unheard=unheard, since=self.began)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._health.left(self)


class BackendHealth:
    """What is known of each backend by its name. `clock`: seconds, for circuits; no clock of the day, which may be set
    back."""

    def __init__(self, database: Database, names: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock, self._lock = database, clock, threading.Lock()
        self._states = {name: _State() for name in names}
        self._read = False

    def read(self) -> None:
        """Take over what an earlier process wrote, once. Where Postgres is unavailable, the next call tries again."""
        with self._lock:
            if self._read:
                return
        rows = self._run(backends.list_all, "all")
        if rows is not None:
            self.take_over(rows)

    def take_over(self, rows: Iterable[BackendRow]) -> None:
        """Begin with what these rows say; what has failed here already is newer."""
        with self._lock:
            self._read = True
            for row in rows:
                state = self._states.get(row.name)
                if state is not None and state.failed_at is None:
                    state.failures, state.reason = row.failures, _WORDS[row.reason] if row.reason else ""
                    if row.failed_at is not None:
                        state.failed_at = self._clock() - seconds_between(row.failed_at, datetime.now(UTC))

    def visit(self, name: str, pictures: int) -> Visit | None:
        """A place at a backend for a drawing of so many pictures; None while its circuit is open, or another drawing
        tries it."""
        with self._lock:
            state = self._states[name]
            circuit = self._circuit(state)
            if circuit is CircuitState.OPEN or (circuit is CircuitState.HALF_OPEN and state.trying):
                return None
            is_trial = circuit is CircuitState.HALF_OPEN
            state.trying = state.trying or is_trial
            state.drawings += 1
            state.pictures += pictures
            return Visit(self, name, pictures, is_trial=is_trial)

    def load(self, name: str) -> int:
        """How many pictures it has to draw for this process."""
        with self._lock:
            return self._states[name].pictures

    def drawings(self, name: str) -> int:
        """How many drawings it has of this process."""
        with self._lock:
            return self._states[name].drawings

    def circuit(self, name: str) -> CircuitState:
        """The state of its circuit now. One that responds again after it did not is tried before its time."""
        with self._lock:
            return self._circuit(self._states[name])

    def reason(self, name: str) -> str:
        """Why it failed last."""
        with self._lock:
            return self._states[name].reason or "it does not respond"

    def looked(self, name: str, facts: BackendFacts) -> None:
        """It has responded and said what it is."""
        with self._lock:
            state = self._states[name]
            state.responded = True
            catch_up = state.unwritten_success
        self._run(lambda: backends.looked(name, facts.version, facts.capabilities), name)
        if catch_up:
            self._write_success(name)

    def failed(self, name: str, reason: str, *, unheard: bool, since: float) -> None:
        """A failure of something that began at `since` (monotonic seconds).

        Where it began before the last failure, it is the same one: sixteen drawings that lose one server count once.
        """
        with self._lock:
            state = self._states[name]
            if since < state.failed_clock:
                return
            state.failures += 1
            state.failed_at, state.failed_clock, state.reason = self._clock(), time.monotonic(), reason
            state.unheard, state.responded, state.unwritten_success = unheard, False, False
            state.proved = False
            circuit = self._circuit(state)
        log.warning("backend_failed backend=%s circuit=%s reason=%s", name, circuit, reason)
        fault = BackendFault.NO_RESPONSE if unheard else BackendFault.DRAWING_FAILED
        self._run(lambda: backends.failed(name, fault), name)

    def proved(self, visit: Visit) -> None:
        """The drawing that tries a backend gets on. Its failures count until there is a picture."""
        with self._lock:
            state = self._states[visit.name]
            # Not after a failure of somebody else's that came later.
            if visit.began >= state.failed_clock:
                state.proved = True

    def succeeded(self, visit: Visit) -> None:
        """A good picture of a visit: its circuit closes."""
        with self._lock:
            state = self._states[visit.name]
            state.pictures -= 1
            was_broken = state.failures > 0
            if was_broken:
                state.failures, state.failed_at, state.reason, state.trying = 0, None, "", False
                state.proved = False
        if was_broken:
            log.info("backend_well backend=%s", visit.name)
            self._write_success(visit.name)

    def left(self, visit: Visit) -> None:
        """A visit has ended, however."""
        with self._lock:
            state = self._states[visit.name]
            state.drawings -= 1
            state.pictures -= visit.pictures
            if visit.is_trial:
                state.trying = False

    def write(self) -> None:
        """Write how much each has to draw; rows of backends that the settings name no more are deleted."""
        for name in self._states:
            self._run(lambda name=name: backends.drawing(name, self.drawings(name)), name)
        self._run(lambda: backends.forget_others(list(self._states)), "others")

    def end(self) -> None:
        """This process draws nothing more."""
        for name in self._states:
            self._run(lambda name=name: backends.drawing(name, 0), name)

    def _circuit(self, state: _State) -> CircuitState:
        if state.proved:
            return CircuitState.CLOSED
        circuit = circuit_after(state.failures, None if state.failed_at is None else self._clock() - state.failed_at)
        back = state.unheard and state.responded
        return CircuitState.HALF_OPEN if circuit is CircuitState.OPEN and back else circuit

    def _write_success(self, name: str) -> None:
        written = self._run(lambda: backends.succeeded(name), name) is not None
        with self._lock:
            state = self._states[name]
            state.unwritten_success = not written and not state.failures

    def _run(self, query: Callable[[], Query[T]], about: str) -> T | None:
        """What a query returns; None where Postgres does not carry it out, which stops no drawing."""
        try:
            return self._database.run(query)
        except StoreFailure as failure:
            log.warning("backend_row_skipped backend=%s error=%s", about, failure.code)
            return None
