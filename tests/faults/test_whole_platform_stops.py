"""The embedded platform is killed, started again and stopped.

By its name the last file of those that use the shared platform: it ends with `darkroom down`.
"""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from deployments.local.leftovers import processes_of
from deployments.local.state import PartState
from tests.deployments.platform import Platform
from tests.faults.bench import Bench
from tests.faults.test_whole_platform import PARTS


@pytest.fixture
def platform(bench: Bench) -> Platform:
    return bench.platform


@pytest.mark.soak
def test_every_part_that_is_killed_comes_back(platform: Platform) -> None:
    """All at once; each in its turn is tests/faults/test_jobs.py."""
    old = {part: platform.kill(part) for part in PARTS}

    platform.wait_healthy(restarted=old)

    assert platform.cli("status").returncode == 0
    assert all(platform.part(part).restarts >= 1 for part in PARTS)


# What died with `up` and what outlives it are met by one start: neither is in the other's way.
@pytest.mark.parametrize(
    "killed",
    [
        ("postgres", "mlflow", "worker-light", "api"),
        pytest.param((), marks=pytest.mark.soak),
        pytest.param(PARTS, marks=pytest.mark.soak),
    ],
    ids=["half", "none", "all"],
)
def test_after_a_kill_of_up_and_of_parts_the_next_one_stops_what_is_left_and_deploys_nothing(
    platform: Platform, killed: tuple[str, ...]
) -> None:
    assert platform.process is not None
    old = {part: platform.pid(part) for part in PARTS}
    key, said = platform.key, len(platform.output)
    platform.process.send_signal(signal.SIGKILL)
    platform.process.wait()
    for part in killed:
        os.kill(old[part], signal.SIGKILL)
    left = [part for part in PARTS if part not in killed]
    assert all(psutil.pid_exists(old[part]) for part in left)
    assert platform.cli("status").returncode == 1

    platform.start()
    platform.wait_healthy(restarted=old)

    assert not any(psutil.pid_exists(pid) for pid in old.values())
    assert platform.key == key
    for part in left:
        assert f"stopped {part} (process {old[part]}), left by an earlier `up`" in platform.output[said:]
    record = platform.record()
    assert record is not None
    deployed, server = record.parts["deploy"], record.parts["prefect"]
    assert (deployed.state, deployed.since < server.since) == (PartState.DONE, True), "it ran once Prefect was there"


@pytest.mark.soak
def test_after_a_kill_of_everything_the_next_one_is_healthy(platform: Platform) -> None:
    platform.kill_everything()

    platform.start()
    platform.wait_healthy()

    assert platform.cli("status").returncode == 0


def test_down_leaves_no_process_within_seconds(platform: Platform) -> None:
    began = time.monotonic()

    down = platform.cli("down")

    assert down.returncode == 0, down.stderr
    assert time.monotonic() - began < 30
    assert platform.process is not None
    assert platform.process.wait(timeout=10) == 0
    assert list(processes_of(platform.folder)) == []
    assert platform.cli("status").returncode == 1
    assert "does not run" in platform.cli("down").stdout
