"""Flow runs that begin warm: forked from a process that has imported their modules already.

A flow run's process spends its first ten to fifteen seconds importing torch, diffusers and MLflow. Here a worker keeps
Python's own fork server (`multiprocessing`, context "forkserver") with the modules of its pool's flows imported, and
takes each flow run's process from there. The server has one thread and runs no flow, so forking it is safe; a flow run
is a process of its own as before, with Prefect's environment, signals and exit status.

A fresh interpreter is started instead, as Prefect does everywhere, when a flow's code has changed since the server
imported it, or where a GPU is present: CUDA does not survive a fork, and whether an import has touched it is not ours
to know.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from deployments.local.fingerprint import PREFECT_FILE, stanzas
from deployments.local.workers.prefect_internals import engine_start, read_settings_again, replace_engine_start
from flows.runs.exit_hooks import run_exit_hooks
from flows.runs.lazy_imports import modules_of_flow

log = logging.getLogger("darkroom.worker")

ENGINE = "prefect.engine"
FLOW_RUN_NAME = "darkroom-flow"
"""What a flow run's process is called in `ps` and `top` (at most 15 characters)."""
# Of NVIDIA's and of AMD's drivers.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")
PACKAGES = ("flows", "storage")
WORKER = "deployments.local.workers.worker"
"""What `multiprocessing` imports again in each process as its main module: 0.4 s of every flow run, unless its imports
are there already."""
UPKEEP = "upkeep"


class WarmStarts:
    """Starts the flow runs of one pool from processes that have their modules already."""

    def __init__(self, modules: Sequence[str]) -> None:
        """`modules` are imported by the fork server; it starts with `warm_up` or with the first flow run."""
        self._modules = [*modules, WORKER]
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(self._modules)
        self._code = newest_change()
        self._start_cold = engine_start()

    def warm_up(self) -> None:
        """Start the fork server, which begins to import."""
        forkserver.ensure_running()

    def install(self) -> None:
        """Have Prefect's worker start its engine through this object."""
        replace_engine_start(self.run_process)

    def is_warm_for(self, command: Sequence[str]) -> bool:
        """Whether `command` is Prefect's engine, and the code that the server imported is still the code on disk."""
        if list(command[1:]) != ["-m", ENGINE]:
            return False
        if newest_change() > self._code:
            log.warning("the code of a flow has changed: flow runs start cold until the next `darkroom up`")
            return False
        return True

    async def run_process(
        self,
        command: list[str],
        *,
        task_status: TaskStatus[Any],
        task_status_handler: Callable[[Any], Any],
        env: Mapping[str, str],
        cwd: Path | str | None = None,
        **options: Any,
    ) -> Any:
        """Run Prefect's engine until it ends, as the function of this name in Prefect does; returns the process.

        Its output goes where the worker's goes.
        """
        if not self.is_warm_for(command):
            started = {"task_status": task_status, "task_status_handler": task_status_handler}
            return await self._start_cold(command, **started, env=env, cwd=cwd, **options)
        process = self._context.Process(target=_run_engine, args=(dict(env), str(cwd) if cwd else None))
        # In a thread: the fork server responds only once its imports are done.
        await anyio.to_thread.run_sync(process.start)
        task_status.started(task_status_handler(process))
        try:
            await anyio.to_thread.run_sync(process.join, abandon_on_cancel=True)
        except BaseException:
            process.terminate()
            raise
        return process


def modules_of_pool(pool: str) -> list[str]:
    """The modules of the flows that are deployed into a work pool and of their steps, without those that nobody waits
    for.

    What is tagged upkeep runs by its schedule: it may import MLflow itself, and need not hold 100 MB all day for that.
    """
    wanted = [stanza for stanza in stanzas(PREFECT_FILE) if stanza["work_pool"]["name"] == pool]
    flows = sorted({str(stanza["entrypoint"]).rsplit(".", 1)[0] for stanza in wanted if UPKEEP not in stanza["tags"]})
    return [module for flow in flows for module in modules_of_flow(flow)]


def warm_starts_are_safe() -> bool:
    """Whether forking after the imports is safe on this machine: it has no GPU."""
    return not any(Path(device).exists() for device in GPU_DEVICES)


def newest_change() -> float:
    """When a source file of the flows or of what they import of ours was changed last (Unix seconds)."""
    folders = [Path(spec.origin).parent for name in PACKAGES if (spec := find_spec(name)) and spec.origin]
    files = [file for folder in folders for pattern in ("*.py", "*.sql") for file in folder.rglob(pattern)]
    return max((file.stat().st_mtime for file in files), default=0.0)


def _run_engine(environment: dict[str, str], folder: str | None) -> None:
    """In the new process: become `python -m prefect.engine` with that environment and folder."""
    Path("/proc/self/comm").write_text(FLOW_RUN_NAME)
    # The fork has the environment of the fork server's start, not the run's own.
    os.environ.clear()
    os.environ.update(environment)
    if folder:
        os.chdir(folder)
    read_settings_again()
    sys.argv = [ENGINE]
    sys.modules.pop(ENGINE, None)  # runpy warns of a module that is about to be run a second time
    try:
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
    finally:
        run_exit_hooks()
