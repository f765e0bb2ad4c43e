"""How a process ends: forked ones run what was registered, and none looks for garbage once more."""

from __future__ import annotations

import atexit
import multiprocessing
import subprocess
import sys
from pathlib import Path

from flows.runs.exit_hooks import run_exit_hooks

ENDS_WITH_GARBAGE = """
from flows.runs.exit_hooks import skip_last_collection

class Circle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("collected")

Circle()
skip_last_collection()
"""


def register_and_end(file: Path) -> None:
    atexit.register(file.touch)
    run_exit_hooks()


def test_a_forked_process_runs_what_was_registered(tmp_path: Path) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=register_and_end, args=(tmp_path / "ran",))
    process.start()
    process.join(60)

    assert process.exitcode == 0
    assert (tmp_path / "ran").exists()


def test_garbage_is_not_looked_for_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS_WITH_GARBAGE], capture_output=True, text=True, check=True)

    assert done.stdout == ""
