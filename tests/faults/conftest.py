"""One embedded platform for all fault tests, with named points in the flows that a test can arm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.training.starter.networks import write_tiny_model
from tests.deployments.platform import running_platform
from tests.faults.bench import Bench, Points

DEADLY = ("regularize", "fit:3", "fit:6", "export")
HOLDING = ("fit:2", "fit:5")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A running platform with a tiny base model, fast heartbeats, and every point disarmed."""
    folder = tmp_path_factory.mktemp("points")
    points = Points(folder)
    orders = {point: f"die:{points.file(point)}" for point in DEADLY}
    orders |= {point: f"wait:{points.file(point)}" for point in HOLDING}
    for point in orders:
        points.disarm(point)
    extra = {
        "DARKROOM_JOBS__HEARTBEAT_SECONDS": "1",
        "DARKROOM_JOBS__SILENT_AFTER_SECONDS": "5",
        "DARKROOM_JOBS__THREADS": "1",
        "DARKROOM_JOBS__CRASH_POINTS": json.dumps(orders),
    }
    tiny = Path(tmp_path_factory.mktemp("model")) / "tiny"
    write_tiny_model(tiny, seed=1)
    with running_platform(extra) as platform:
        platform.wait_healthy()
        added = platform.cli("base", "add", str(tiny), "--name", "tiny")
        assert added.returncode == 0, added.stderr
        yield Bench(platform, points)
