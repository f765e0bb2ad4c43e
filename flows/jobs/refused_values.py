"""What to do when MLflow refuses: one thing that it will never take must not hold up what waits behind it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.jobs.tracking import is_refusal

Value = Metric | Param | RunTag

log = logging.getLogger("darkroom.tracking")

REFUSALS = 5
"""Of one thing in a row, after which it is dropped."""
MAX_DOUBTFUL = 5
"""Values refused with _AMBIGUOUS before one is taken, after which no other of their batch is tried."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_INVALID = "INVALID_PARAMETER_VALUE"
"""Also of a parameter that has another value already, and of everything that is sent to a deleted run."""
_AMBIGUOUS = "BAD_REQUEST"
"""Of whatever MLflow's database raises: for a value that it cannot hold, and for want of a connection."""


def is_of_the_value(error: Exception) -> bool:
    """Whether MLflow may have refused a value itself, so that others may still be taken. False for a refusal of the
    caller or of the address, and for a failure of MLflow: they would hit every value."""
    return isinstance(error, MlflowException) and error.error_code in (_INVALID, _AMBIGUOUS)


class RefusedTries:
    """How often in a row MLflow has refused one thing. counts: whether an error is such a refusal."""

    def __init__(self, counts: Callable[[Exception], bool] = is_refusal) -> None:
        self._count = 0
        self._counts = counts

    def are_for_good(self, error: Exception) -> bool:
        """Whether that was one refusal too many. A full disk of this machine, and no response, are none."""
        if not self._counts(error) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
            return False
        self._count += 1
        return self._count >= REFUSALS

    def clear(self) -> None:
        """It was taken, or dropped."""
        self._count = 0


def send_what_is_taken(client: MlflowClient, run_id: str, job_id: UUID, values: Sequence[Value]) -> int:
    """Send values to a run; what MLflow refuses is named in the log, and the others are sent. Returns how many were.

    Raises MLFLOW_UNAVAILABLE, and drops nothing, when MLflow does not respond or refuses more than values: the caller,
    the run, or with BAD_REQUEST all of them. Values that it has already may be sent again.
    """
    taken, refused = 0, list[tuple[Value, MlflowException]]()
    waiting = [values]
    while waiting:
        some = waiting.pop()
        try:
            _log_batch(client, run_id, some)
        except MlflowException as error:
            if not is_of_the_value(error) or (some is values and not _is_active(client, run_id)):
                raise
            if len(some) > 1:
                half = len(some) // 2
                # The first half is next: points of a name are sent in the order of their steps.
                waiting += [some[half:], some[:half]]
                continue
            refused.append((some[0], error))
        else:
            taken += len(some)
        doubtful = [error for _, error in refused if error.error_code == _AMBIGUOUS]
        if doubtful and not taken and (not waiting or len(doubtful) >= MAX_DOUBTFUL):
            raise doubtful[0]
    for one, error in refused:
        # Not MLflow's sentence: it has the value, which may be somebody's words.
        kind = type(one).__name__.lower()
        log.warning("MLflow does not take %s %r of job %s: %s", kind, one.key, job_id, error.error_code)
    return taken


def _log_batch(client: MlflowClient, run_id: str, values: Sequence[Value]) -> None:
    client.log_batch(
        run_id,
        metrics=[one for one in values if isinstance(one, Metric)],
        params=[one for one in values if isinstance(one, Param)],
        tags=[one for one in values if isinstance(one, RunTag)],
    )


def _is_active(client: MlflowClient, run_id: str) -> bool:
    return client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE
