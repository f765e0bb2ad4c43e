"""The runs in MLflow of the workflows that have ended, made by a thread beside those that are drawn."""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Self
from uuid import UUID

import psycopg

from flows.runs.lazy_imports import imported_when_used
from flows.runs.run_logs import run_logger
from storage.errors import StoreFailure
from storage.stores import Stores

if TYPE_CHECKING:
    from flows.jobs import tracking, workflow_tracking
else:
    # MLflow's client takes seconds to import; a run that draws nothing needs none.
    tracking = imported_when_used("flows.jobs.tracking")
    workflow_tracking = imported_when_used("flows.jobs.workflow_tracking")

_log = partial(run_logger, "darkroom.tracking")

SETTLE_SECONDS = 2.0
"""Workflows that end so soon after another one have their runs made together."""
AGAIN_SECONDS = 60.0
"""How long an MLflow that did not respond is left alone."""
LAST_SECONDS = 60.0
"""How long the end of the flow run waits for the last ones; what is left is the next run's, or `reconcile`'s."""


class WorkflowTracker:
    """Makes the runs. Use as a context manager around what draws; no method waits for MLflow, nor raises."""

    def __init__(self, stores: Stores, last_seconds: float = LAST_SECONDS) -> None:
        self._stores, self._last_seconds = stores, last_seconds
        self._passed: set[UUID] = set()
        self._some, self._ended = threading.Event(), threading.Event()
        # What it logs is the flow run's.
        make = copy_context().run
        self._thread = threading.Thread(target=make, args=(self._make_runs,), name="workflow-tracker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._some.set()
        # A process that has to stop does not wait.
        if kind is None:
            self._thread.join(self._last_seconds)

    def add(self) -> None:
        """A workflow has ended."""
        self._some.set()

    def _make_runs(self) -> None:
        again: float | None = None
        while not self._ended.is_set():
            self._some.wait(again)
            self._ended.wait(SETTLE_SECONDS)
            self._some.clear()
            again = None if self._make() else AGAIN_SECONDS
            if again:
                self._ended.wait(again)

    def _make(self) -> bool:
        try:
            client = tracking.tracking_client(self._stores.settings)
            while True:
                batch = workflow_tracking.track_workflows(self._stores, client, self._passed)
                for sentence in (*batch.made, *batch.refused):
                    _log().info("%s", sentence)
                if not batch.made and not batch.refused:
                    return True
        except (*tracking.MLFLOW_UNAVAILABLE, OSError, StoreFailure, psycopg.Error) as error:
            _log().warning("ended workflows have no tracking runs yet: %s", type(error).__name__)
            return False
        except Exception:  # noqa: BLE001 - pictures are drawn all the same
            _log().exception("ended workflows have no tracking runs yet")
            return False
