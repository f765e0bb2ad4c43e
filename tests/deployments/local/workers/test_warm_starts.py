"""Flow runs forked from a process with their imports done: what is started so, what is not, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from deployments.local.environment import PROJECT
from deployments.local.workers import warm_starts
from deployments.local.workers.prefect_internals import engine_start, replace_engine_start
from deployments.local.workers.warm_starts import FLOW_RUN_NAME, WarmStarts, modules_of_pool, newest_change

ENGINE = [sys.executable, "-m", "prefect.engine"]
FORKED = """
import sys

from deployments.local.workers.warm_starts import WarmStarts, modules_of_pool

# What the forked process runs is named, not imported: it would bring what it imports.
warm = WarmStarts(modules_of_pool("training") if sys.argv[1] == "training" else [sys.argv[1]])
show = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text(' '.join(sys.modules))"
process = warm._context.Process(target=exec, args=(show,))
process.start()
process.join()
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmStarts]:
    original = engine_start()
    yield WarmStarts(["prefect.flow_engine"])
    replace_engine_start(original)


def run(warm: WarmStarts, command: list[str], folder: Path, **environment: str) -> tuple[Any, str]:
    """A process from start to end, and what it was called while it ran."""
    names: list[str] = []

    async def main() -> Any:
        async def work(*, task_status: Any) -> None:
            ended.append(
                await warm.run_process(
                    command,
                    task_status=task_status,
                    task_status_handler=lambda process: process,
                    env={**os.environ, **environment},
                    cwd=folder,
                    stream_output=False,
                )
            )

        ended: list[Any] = []
        async with anyio.create_task_group() as group:
            process = await group.start(work)
            while process.pid is not None and psutil.pid_exists(process.pid) and FLOW_RUN_NAME not in names:
                names.append(name_of(process.pid))
                await anyio.sleep(0.005)
        return ended[0]

    return anyio.run(main), names[-1]


def name_of(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


def test_the_engine_runs_in_a_process_of_its_own_and_ends_with_its_status(warm: WarmStarts, tmp_path: Path) -> None:
    process, name = run(warm, ENGINE, tmp_path, PREFECT__FLOW_RUN_ID="no-id")

    assert process.exitcode == 1  # the engine refuses an id that is none
    assert name == FLOW_RUN_NAME
    assert process.pid != os.getpid()


def test_a_process_that_is_killed_ends_with_the_signal(warm: WarmStarts, tmp_path: Path) -> None:
    process = warm._context.Process(target=time.sleep, args=(60,))
    process.start()
    process.kill()
    process.join()

    assert process.exitcode == -9


def test_another_command_is_started_as_prefect_does(warm: WarmStarts, tmp_path: Path) -> None:
    code = "import os; open('seen', 'w').write(os.environ['WORD']); raise SystemExit(7)"
    process, name = run(warm, [sys.executable, "-c", code], tmp_path, WORD="cold")

    assert process.returncode == 7
    assert (tmp_path / "seen").read_text() == "cold"
    assert name != FLOW_RUN_NAME


def test_after_a_change_of_a_flows_code_the_engine_is_started_cold(
    warm: WarmStarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warm.is_warm_for(ENGINE)
    monkeypatch.setattr(warm_starts, "newest_change", lambda: newest_change() + 1)

    assert not warm.is_warm_for(ENGINE)


def test_a_worker_imports_the_flows_of_its_own_pool_that_somebody_waits_for() -> None:
    assert "flows.training.dreambooth" in modules_of_pool("training")
    assert "flows.training.dreambooth_steps" in modules_of_pool("training")
    assert "flows.training.dreambooth" not in modules_of_pool("light")
    assert "flows.indexing.sync" in modules_of_pool("light")
    assert "flows.upkeep.reconcile" not in modules_of_pool("light")


def loaded_by_a_fork(what: str, folder: Path) -> set[str]:
    """The modules that a forked process has before it imports any: of the pool training, or of one module."""
    shown = folder / "loaded"
    command = [sys.executable, "-c", FORKED, what, str(shown)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=300)
    return set(shown.read_text().split())


def test_a_process_that_a_worker_forks_has_its_modules_already(tmp_path: Path) -> None:
    """A small module, for torch takes ten seconds of a core; tests/faults/test_whole_platform.py looks for that."""
    assert "flows.starter.captions" in loaded_by_a_fork("flows.starter.captions", tmp_path)


@pytest.mark.soak
def test_a_process_that_a_worker_forks_has_torch_already(tmp_path: Path) -> None:
    loaded = loaded_by_a_fork("training", tmp_path)

    assert loaded >= {"torch", "diffusers", "transformers", "pytorch_lightning", "mlflow"}
