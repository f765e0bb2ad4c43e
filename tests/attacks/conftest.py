"""The running platform that attacks share with tests/faults."""

from __future__ import annotations

import pytest

from tests.faults.bench import Bench
from tests.faults.shared import shared_bench


@pytest.fixture(scope="package")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A whole platform, and what has been done with it so far."""
    return shared_bench(request.config, tmp_path_factory)
