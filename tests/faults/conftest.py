"""One embedded platform for all fault tests, with named points in the flows that a test can arm."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from deployments.local.servers.prefect_http import prefect_http
from tests.deployments.platform import Platform
from tests.faults.bench import Bench
from tests.faults.late_run import leave_a_run_late
from tests.faults.shared import shared_bench, shared_job


@pytest.fixture(scope="package")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A running platform with a tiny base model, fast heartbeats, every point disarmed; gone with its last test."""
    return shared_bench(request.config, tmp_path_factory)


@pytest.fixture(scope="module")
def platform(bench: Bench) -> Platform:
    """The running platform, in which a flow run stays late."""
    leave_a_run_late(bench.platform.settings)
    return bench.platform


@pytest.fixture
def prefect(platform: Platform) -> Iterator[httpx.Client]:
    """A client of its Prefect."""
    with prefect_http(platform.settings.prefect) as client:
        yield client


@pytest.fixture(scope="package")
def straight_job(bench: Bench) -> str:
    """The id of a fine-tune with the recipe of these tests, during which nothing died."""
    return shared_job(bench)


@pytest.fixture(scope="package")
def straight(bench: Bench, straight_job: str) -> dict[str, str]:
    """What the recipe of these tests returns when nothing dies."""
    return bench.weights(straight_job)
