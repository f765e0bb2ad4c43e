"""What to do when MLflow refuses: one thing that it will never take must not hold up what waits behind it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from uuid import UUID

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from flows.jobs.tracking import MLFLOW_UNAVAILABLE, is_refusal

log = logging.getLogger("darkroom.tracking")

REFUSALS = 5
"""Of one thing in a row, after which it is dropped."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class RefusedTries:
    """How often in a row MLflow has refused one thing."""

    def __init__(self) -> None:
        self._count = 0

    def are_for_good(self, error: Exception) -> bool:
        """Whether that was one refusal too many. A full disk of this machine, and no response, are none."""
        if not is_refusal(error) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
            return False
        self._count += 1
        return self._count >= REFUSALS

    def clear(self) -> None:
        """It was taken, or dropped."""
        self._count = 0


def send_what_is_taken(
    client: MlflowClient, run_id: str, job_id: UUID, values: Sequence[Metric | Param | RunTag]
) -> None:
    """Send values to a run; what MLflow refuses is named in the log, and the others are sent.

    Raises MLFLOW_UNAVAILABLE when MLflow does not respond. Values that it has already may be sent again.
    """
    try:
        client.log_batch(
            run_id,
            metrics=[one for one in values if isinstance(one, Metric)],
            params=[one for one in values if isinstance(one, Param)],
            tags=[one for one in values if isinstance(one, RunTag)],
        )
    except MLFLOW_UNAVAILABLE as error:
        if not is_refusal(error):
            raise
        if len(values) > 1:
            half = len(values) // 2
            send_what_is_taken(client, run_id, job_id, values[:half])
            send_what_is_taken(client, run_id, job_id, values[half:])
            return
        # Not MLflow's sentence: it has the value, which may be somebody's words.
        code = getattr(error, "error_code", type(error).__name__)
        for one in values:
            log.warning("MLflow does not take %s %r of job %s: %s", type(one).__name__.lower(), one.key, job_id, code)
