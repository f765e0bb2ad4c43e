"""Programs that run in processes of their own and begin warm: forked from one that has torch and the flows already.

A fresh interpreter takes ten seconds of a core to import what a training needs, and many tests kill one. So each pytest
process keeps Python's own fork server, as a worker does (`deployments.local.workers.warm_starts`). It is started by the
first test that needs it; there is one for a process, and one list of what it imports, since the last list given to
`multiprocessing` would be that of all.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

from deployments.local.workers.prefect_internals import read_settings_again
from flows.runs.exit_hooks import run_exit_hooks
from flows.runs.lazy_imports import modules_of_flow

CONTEXT = multiprocessing.get_context("forkserver")
"""What starts processes that have all of that."""
KILLED = ("tests.flows.training.dying", "tests.flows.indexing.processes", "tests.flows.notifications.test_kills")
"""Modules whose functions are started there."""
CONTEXT.set_forkserver_preload([*modules_of_flow("flows.training.dreambooth"), *KILLED, __name__])


def start_warm() -> None:
    """Start the fork server unless it runs, so that no other list of modules is its own."""
    forkserver.ensure_running()


def run_warm(
    program: str, *arguments: str, environment: Mapping[str, str], seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a program's text with these arguments and this environment alone, as `python -c` would.

    Returns how it ended (negative: by that signal) and what it wrote. Raises subprocess.TimeoutExpired after so many
    seconds, and kills it.
    """
    command = ["-c", *arguments]
    with tempfile.TemporaryDirectory(prefix="warm-") as name:
        written = [Path(name, "stdout"), Path(name, "stderr")]
        process = CONTEXT.Process(target=_become, args=(program, command, dict(environment), os.getcwd(), written))
        process.start()
        process.join(seconds)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        status, texts = process.exitcode, [file.read_text() if file.exists() else "" for file in written]
        process.close()
    if late or status is None:
        raise subprocess.TimeoutExpired([sys.executable, *command], seconds, *texts)
    return subprocess.CompletedProcess([sys.executable, *command], status, *texts)


def _become(program: str, command: list[str], environment: dict[str, str], folder: str, written: list[Path]) -> None:
    """In the new process: run the program as its main module, with its output in two files."""
    for number, file in enumerate(written, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    read_settings_again()
    sys.argv = command
    try:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        run_exit_hooks()
