"""Which errors pass by waiting, and how long: one policy for each kind of remote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from storage.backoff import retried
from storage.errors import StoreUnavailable
from storage.postgres.connection import Query, Script
from storage.stores import Stores

T = TypeVar("T")


def passes_by_waiting(error: BaseException) -> bool:
    """Whether the same call may succeed later: a store or server that does not respond, a broken connection, a lock.

    Not a full disk, which somebody has to fix, nor a statement that took too long and would again.
    """
    return isinstance(error, StoreUnavailable | ConnectionError | TimeoutError)


def with_retries(stores: Stores, call: Callable[[], T], check: Callable[[], None] | None = None) -> T:
    """What `call` returns, tried again while a store is unavailable, for as long as the settings have patience.

    `check` runs before each try and may raise to stop waiting. Raises the last StoreUnavailable.
    """
    return retried(call, StoreUnavailable, patience_seconds=stores.settings.jobs.patience_seconds, check=check)


def run_with_retries(
    stores: Stores, script: Callable[[], Query[T] | Script[T]], check: Callable[[], None] | None = None
) -> T:
    """What a script returns, begun again while Postgres is unavailable, for as long as the settings have patience."""
    return with_retries(stores, lambda: stores.database.run(script), check)


def task_retries(task: object, task_run: object, state: Any) -> bool:
    """Prefect's retry condition: only errors that pass by waiting are tried again."""
    try:
        # The only way to the error: a failed state raises what the task raised.
        state.result()
    except BaseException as error:  # noqa: BLE001 - a condition judges whatever the task raised, and raises nothing
        return passes_by_waiting(error)
    return False


# Of tasks, for what `with_retries` does not surround. Flows have no retries: Prefect would run one again in the same
# process, and the relay starts a new attempt anyhow.
STORE_RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": task_retries,
}
"""For a task that reads or writes stores. Use as @task(**STORE_RETRIES)."""
