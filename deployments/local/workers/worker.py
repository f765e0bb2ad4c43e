"""A worker of one process work pool: `python -m deployments.local.workers.worker --pool training --limit 1`.

Prefect's own worker class. `prefect worker start --type process` does the same, and is what other servers use; but a
worker started so imports every Prefect integration that is installed, Dask among them, to report to the server their
versions: 38 MB and a second of CPU for each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC
from typing import Annotated

import typer
from prefect.workers.process import ProcessWorker

from deployments.local.workers.warm_starts import WarmStarts, modules_of_pool, warm_starts_are_safe
from storage.settings import load_settings

# The imports begin when the other parts have had their start, which shares the cores with them.
WARM_UP_AFTER_SECONDS = 5.0


class LeanProcessWorker(ProcessWorker, ABC):
    """A process worker that does not report which integrations are installed.

    Named abstract so that Prefect does not enter it in its registry, where `process` is taken.
    """

    async def _worker_metadata(self) -> None:
        return None


def work(
    pool: Annotated[str, typer.Option(help="The work pool to poll.")],
    limit: Annotated[int, typer.Option(help="Flow runs at one time.", min=1)],
) -> None:
    """Poll a work pool and run its flows, each in a process of its own, until SIGINT."""
    if load_settings().jobs.warm_starts and warm_starts_are_safe():
        warm = WarmStarts(modules_of_pool(pool))
        warm.install()
        timer = threading.Timer(WARM_UP_AFTER_SECONDS, warm.warm_up)
        timer.daemon = True
        timer.start()
    worker = LeanProcessWorker(work_pool_name=pool, name=f"worker-{pool}", limit=limit)
    with contextlib.suppress(KeyboardInterrupt):  # the way to stop it; asyncio has closed the worker by then
        asyncio.run(worker.start())


if __name__ == "__main__":
    typer.run(work)
