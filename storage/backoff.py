"""How long to wait before a failed thing is tried again: twice as long each time. The one place that decides.

`retried` repeats a call, by stamina. `pause_after` is for loops that stamina cannot run: those that have to wake when
they are stopped, those that begin counting again with each success, and those that are a state and not a loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from storage.errors import DarkroomError

log = logging.getLogger("darkroom.retries")

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 5.0
_DOUBLINGS = 32
"""More of them are longer than anything waits, and at last no float."""


def retried(
    call: Callable[[], T],
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool],
    *,
    patience_seconds: float | None,
    attempts: int | None = None,
    check: Callable[[], None] | None = None,
    first_seconds: float = FIRST_WAIT_SECONDS,
    longest_seconds: float = MAX_WAIT_SECONDS,
) -> T:
    """What `call` returns, tried again after errors that `on` names for `patience_seconds`.

    Not again when that is 0 or less; None: until `attempts` are used up.

    The last try begins at most `longest_seconds` after that. `check` runs before each try and may raise to end the
    waiting. Raises the last error.
    """
    if patience_seconds is not None and patience_seconds <= 0:  # stamina reads a time-out of 0 as a mistake
        attempts, patience_seconds = 1, 1
    contexts = stamina.retry_context(
        on,
        attempts=attempts,
        timeout=patience_seconds,
        wait_initial=first_seconds,
        wait_max=longest_seconds,
        # Jitter spreads callers that lost the same store at the same moment; otherwise all of them come back together.
        wait_jitter=first_seconds / 2,
    )
    for attempt in contexts:
        if check is not None:
            check()
        with attempt:
            return call()
    raise AssertionError("stamina raises the last error itself")


def pause_after(failures: int, first_seconds: float, longest_seconds: float) -> float:
    """Seconds to wait after `failures` (1 or more) in a row."""
    return min(first_seconds * 2 ** min(failures - 1, _DOUBLINGS), longest_seconds)


def _log_retry(details: RetryDetails) -> None:
    error = details.caused_by
    code = error.code if isinstance(error, DarkroomError) else type(error).__name__
    log.warning("try %d failed, again in %.1f s: %s: %s", details.retry_num, details.wait_for, code, error)


# stamina's own hooks log a line without the error's text, and count in prometheus_client's global registry.
set_on_retry_hooks([_log_retry])
