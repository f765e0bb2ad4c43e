"""Whether a backend is asked at all: after some failures in a row it is left alone, then tried once.

The pattern is the circuit breaker (M. Nygard, "Release It!", 2007). Its state is a row, so that the API shows it and a
flow run that begins later knows it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

FAILURES = 3
"""So many in a row open a circuit."""
OPEN_SECONDS, LONGEST_OPEN_SECONDS = 15.0, 300.0
"""How long it is left alone at first, and at most: twice as long after each try that fails."""


class CircuitState(StrEnum):
    """Closed: it is asked. Open: it is not. Half open: the next drawing tries it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BackendFault(StrEnum):
    """Why a backend failed last. What it said stands in the log alone: it may name addresses and files of its own."""

    NO_RESPONSE = "no_response"
    DRAWING_FAILED = "drawing_failed"


class BackendRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a backend. `failures` in a row, the last of them at `failed_at` with `reason`.

    `drawing`: steps that it draws now, as its flow run said at `looked_at`. `capabilities` are plain JSON.
    """

    name: str
    version: str
    capabilities: dict[str, object]
    failures: int
    failed_at: datetime | None
    reason: BackendFault | None
    drawing: int
    looked_at: datetime
    responded_at: datetime | None


def open_seconds(failures: int) -> float:
    """How long a backend is left alone after so many failures in a row."""
    if failures < FAILURES:
        return 0.0
    return min(OPEN_SECONDS * 2.0 ** min(failures - FAILURES, 16), LONGEST_OPEN_SECONDS)


def circuit_after(failures: int, seconds: float | None) -> CircuitState:
    """The state of a circuit so long after its last failure; None: it never failed."""
    pause = open_seconds(failures)
    if seconds is None or not pause:
        return CircuitState.CLOSED
    return CircuitState.OPEN if seconds < pause else CircuitState.HALF_OPEN


def circuit_of(failures: int, failed_at: datetime | None, now: datetime) -> CircuitState:
    """The state of a circuit at a moment, by its row."""
    return circuit_after(failures, None if failed_at is None else seconds_between(failed_at, now))


def seconds_between(failed_at: datetime, now: datetime) -> float:
    """How long ago a failure was. A clock that was set back since makes no circuit stay open until it has caught up."""
    return abs((now - failed_at).total_seconds())
