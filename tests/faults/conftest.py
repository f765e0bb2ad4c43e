"""One embedded platform for all fault tests, with named points in the flows that a test can arm."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.deployments.platform import running_platform
from tests.faults.bench import Bench, Points, add_tiny_base

PLACES = ("regularize", "fit:3", "fit:6", "export")
"""Where fault tests kill a job."""


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A running platform with a tiny base model, fast heartbeats, every point disarmed; gone with its last test."""
    folder = tmp_path_factory.mktemp("points")
    points = Points(folder)
    orders = {point: f"wait:{points.file(point)}" for point in (*PLACES, "fit:2")}
    for point in orders:
        points.disarm(point)
    extra = {
        "DARKROOM_JOBS__HEARTBEAT_SECONDS": "1",
        "DARKROOM_JOBS__SILENT_AFTER_SECONDS": "5",
        "DARKROOM_JOBS__THREADS": "1",
        "DARKROOM_JOBS__CRASH_POINTS": json.dumps(orders),
    }
    with running_platform(extra) as platform:
        platform.wait_healthy()
        add_tiny_base(platform, tmp_path_factory.mktemp("model"))
        yield Bench(platform, points)


@pytest.fixture(scope="package")
def straight_job(bench: Bench) -> str:
    """The id of a fine-tune with the recipe of these tests, during which nothing died."""
    job_id = bench.submit()
    bench.wait_for_end(job_id)
    return job_id


@pytest.fixture(scope="package")
def straight(bench: Bench, straight_job: str) -> dict[str, str]:
    """What the recipe of these tests gives when nothing dies."""
    return bench.weights(straight_job)
