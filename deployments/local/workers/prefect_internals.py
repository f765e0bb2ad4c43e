"""What we use of Prefect without a promise that it stays: everything that is private there, or named in no page of its.

Any release may change it, so `pyproject.toml` pins the version. Each says what upstream would have to offer instead.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable, Callable
from typing import Any

from prefect.context import refresh_global_settings_context
from prefect.runner import _starter_engine
from prefect.workers.process import ProcessWorker

EngineStart = Callable[..., Awaitable[Any]]
"""How a worker starts Prefect's engine for a flow run and waits for its end; returns the process."""


def engine_start() -> EngineStart:
    """How the workers of this process start Prefect's engine now."""
    return _starter_engine.run_process  # pyright: ignore[reportPrivateImportUsage]


def replace_engine_start(start: EngineStart) -> None:
    """Have the workers of this process start Prefect's engine by `start`.

    Prefect's own docstring of the class that calls it (EngineCommandStarter) names this attribute as the place to
    replace it.

    Upstream: no issue found that asks for a public one (searched 2026-11-29). PrefectHQ/prefect#21944, closed, is about
    the seconds that each start costs. A parameter of ProcessWorker that takes such a function would do.
    """
    _starter_engine.run_process = start  # pyright: ignore[reportPrivateImportUsage]


def read_settings_again() -> None:
    """Have Prefect read its settings from the environment as it is now, in a process that read them before.

    Upstream: the function is public by its name and in no page of Prefect's; it was made for Prefect's own plugins. No
    issue found (searched 2026-11-29). A page that names it would do.
    """
    refresh_global_settings_context()


class LeanProcessWorker(ProcessWorker, ABC):
    """A process worker that does not report which integrations are installed.

    To find their versions it would import every one of them, Dask among them: 38 MB and a second of CPU for each
    worker. It is named abstract so that Prefect does not enter it in its registry, where `process` is taken.

    Upstream: PrefectHQ/prefect#15898 made the report. No issue found that asks for a way to leave it out (searched
    2026-11-29); a setting would do.
    """

    async def _worker_metadata(self) -> None:
        return None
