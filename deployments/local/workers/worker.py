"""A worker of one process work pool: `python -m deployments.local.workers.worker --pool training --limit 1`.

Prefect's own worker class, made lean. `prefect worker start --type process` does the same, and is what other servers
use.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC
from typing import Annotated, Any

import typer
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorkerResult

from deployments.local.workers.polling import PollingPace, woken_by_events
from deployments.local.workers.prefect_internals import LeanProcessWorker
from deployments.local.workers.warm_starts import WarmStarts, modules_of_pool, warm_starts_are_safe
from storage.settings import load_settings

# The imports begin when the other parts have had their start, which shares the cores with them.
WARM_UP_AFTER_SECONDS = 5.0


class PacedWorker(LeanProcessWorker, ABC):
    """A lean worker that asks for flow runs at a pace. Named abstract for the same reason as the lean one."""

    def __init__(self, pool: str, limit: int, pace: PollingPace) -> None:
        super().__init__(work_pool_name=pool, name=f"worker-{pool}", limit=limit)
        self._pace = pace

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Prefect's loop calls this every PREFECT_WORKER_QUERY_SECONDS."""
        if not self._pace.is_due():
            return []
        self._pace.asked()
        return await super().get_and_submit_flow_runs()

    async def run(self, *arguments: Any, **named: Any) -> ProcessWorkerResult:
        """Run a flow in its process. Its end makes room for the next one, which may wait already."""
        try:
            return await super().run(*arguments, **named)
        finally:
            self._pace.wake()


def work(
    pool: Annotated[str, typer.Option(help="The work pool to poll.")],
    limit: Annotated[int, typer.Option(help="Flow runs at one time.", min=1)],
) -> None:
    """Poll a work pool and run its flows, each in a process of its own, until SIGINT."""
    settings = load_settings()
    if settings.jobs.warm_starts and warm_starts_are_safe():
        warm = WarmStarts(modules_of_pool(pool))
        warm.install()
        timer = threading.Timer(WARM_UP_AFTER_SECONDS, warm.warm_up)
        # A worker that is stopped before must not wait for it.
        timer.daemon = True
        timer.start()
    pace = PollingPace()
    worker = PacedWorker(pool, limit, pace)
    # Ctrl-C is the way to stop it; asyncio has closed the worker by then.
    with woken_by_events(settings.postgres, pace), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(worker.start())


if __name__ == "__main__":
    typer.run(work)
