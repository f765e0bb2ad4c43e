"""What Postgres refuses, by name: who waits, who runs again, who asks for less, who makes room.

deadlock, serialization failure   run again at once by `Database.run`, where it can be
lock time-out, no connection      tried again with patience
statement time-out                never tried again as it is: it takes as long again
disk full                         never: somebody has to make room first
"""

from __future__ import annotations

import logging
import random
from collections import Counter

import psycopg
from psycopg import errors as refusals
from psycopg_pool import PoolTimeout

from storage.errors import (
    Deadlock,
    DiskFull,
    LockTimeout,
    PostgresUnavailable,
    SerializationFailure,
    StatementTimeout,
    StoreFailure,
    TransactionConflict,
)
from storage.settings import PostgresSettings

log = logging.getLogger("darkroom.postgres")

AGAIN_SECONDS = (0.01, 0.05, 0.2)
"""How long to wait before a transaction that met a conflict is run again, each time: about as long as another takes.

Not storage.backoff's `retried`: the sync and the async driver share this table, and each repeats a script's maker."""
# The time-out of an idle transaction is an InternalError to psycopg (class 25), so it is named by itself.
FAILURES = (psycopg.OperationalError, psycopg.InterfaceError, refusals.IdleInTransactionSessionTimeout, PoolTimeout)
"""What the driver raises when the statement or the data are not at fault."""

# Connection exceptions, insufficient resources (too many connections, no memory), operator intervention (a server that
# stops or starts), system errors. See https://www.postgresql.org/docs/18/errcodes-appendix.html
_PASSING_CLASSES = ("08", "53", "57", "58")


class Reruns:
    """The transactions that are run again after a conflict, in one process: counted by the conflict's name."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def pause(self, conflict: TransactionConflict, runs: int, *, possible: bool) -> float:
        """For how many seconds to wait before the next run. Raises the conflict when there is to be none."""
        if not possible or runs >= len(AGAIN_SECONDS):
            raise conflict
        self.counts[conflict.code] += 1
        log.warning("%s: the transaction is run again, %d of %d", conflict.code, runs + 1, len(AGAIN_SECONDS))
        # At random: the two that undid each other would otherwise meet again.
        return AGAIN_SECONDS[runs] * random.uniform(0.5, 1.5)


def named(error: Exception, settings: PostgresSettings) -> Exception:
    """One of FAILURES as the StoreFailure that it is; the error itself where it is a fault of ours after all."""
    match error:
        case refusals.DeadlockDetected():
            return Deadlock("Postgres undid the transaction to end a deadlock; nothing was saved. Try again.")
        case refusals.SerializationFailure():
            return SerializationFailure("Another transaction changed the same rows; nothing was saved. Try again.")
        case refusals.LockNotAvailable():
            return LockTimeout(
                f"Another transaction held what this one needs for over {settings.lock_timeout_seconds:g} s; nothing "
                "was saved. Try again in a few seconds."
            )
        # Named before the classes: its code, 57014, is of class 57, which otherwise means that waiting helps.
        case refusals.QueryCanceled():
            return StatementTimeout(
                f"Postgres cancelled a statement: the limit is {settings.statement_timeout_seconds:g} s. Nothing was "
                "saved. Trying the same again takes as long: ask for less, or have the operator look at what keeps "
                "Postgres busy."
            )
        # 53400 is what a statement meets that needs more temporary files than temp_file_limit allows.
        case refusals.DiskFull() | refusals.ConfigurationLimitExceeded():
            return DiskFull(
                f"Postgres has no room left ({error.sqlstate}); nothing was saved, and reading works as before. The "
                "operator frees some space on its disk; then everything works again by itself."
            )
        case _:
            return _unavailable(error)


def _unavailable(error: Exception) -> StoreFailure | Exception:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if (
        # No SQLSTATE: the connection broke, or was never made, so the server could not say anything.
        state is None
        or state.startswith(_PASSING_CLASSES)
        or isinstance(error, refusals.IdleInTransactionSessionTimeout)
    ):
        what = f"{type(error).__name__} {state}" if state else type(error).__name__
        return PostgresUnavailable(f"Postgres does not respond ({what}). Try again in a few seconds.")
    return error
