"""The lock and the record of a running `up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deployments.local.errors import AlreadyRunning, NotRunning
from deployments.local.platform import stop_platform
from deployments.local.state import ProcessName, holder, holding, name_process
from storage.settings import Settings


def test_a_process_is_not_taken_for_a_later_one_with_its_pid() -> None:
    me = name_process(os.getpid())

    assert me.process() == psutil.Process()
    assert ProcessName(me.pid, me.created - 100).process() is None


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        "from deployments.local.state import holding\n"
        "with holding(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert holder(tmp_path) == other.pid
    with pytest.raises(AlreadyRunning, match=f"process {other.pid}"), holding(tmp_path):
        pass

    other.kill()
    other.communicate()

    assert holder(tmp_path) is None
    with holding(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_stopping_what_does_not_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="darkroom up"):
        stop_platform(Settings(data_folder=tmp_path / "never"))
    with pytest.raises(NotRunning, match=str(tmp_path)):
        stop_platform(Settings(data_folder=tmp_path))
