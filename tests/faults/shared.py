"""The one platform of tests/faults and tests/attacks: the first test that asks starts it, tests/conftest.py ends it."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.conftest import SHARED_PLATFORM
from tests.deployments.platform import running_platform
from tests.faults.bench import Bench, Points, add_tiny_base

PLACES = ("regularize", "fit:3", "fit:6", "export")
"""Where fault tests kill a job."""
MAIL_PASSWORD = "a password of a mail server, given to up"
BENCH = pytest.StashKey[Bench]()


def shared_bench(config: pytest.Config, folders: pytest.TempPathFactory) -> Bench:
    """The running platform, started unless it is."""
    if SHARED_PLATFORM not in config.stash:
        with ExitStack() as stack:
            config.stash[BENCH] = _start(stack, folders)
            config.stash[SHARED_PLATFORM] = stack.pop_all()
    return config.stash[BENCH]


def shared_job(bench: Bench) -> str:
    """The id of a fine-tune with the recipe of tests/faults, during which nothing died; the same for all."""
    if bench.straight_job is None:
        bench.straight_job = bench.submit()
    bench.wait_for_end(bench.straight_job)
    return bench.straight_job


def _start(stack: ExitStack, folders: pytest.TempPathFactory) -> Bench:
    points = Points(folders.mktemp("points"))
    orders = {point: f"wait:{points.file(point)}" for point in (*PLACES, "fit:2", "evaluate")}
    for point in orders:
        points.disarm(point)
    extra = {
        "DARKROOM_JOBS__HEARTBEAT_SECONDS": "1",
        "DARKROOM_JOBS__SILENT_AFTER_SECONDS": "5",
        "DARKROOM_JOBS__THREADS": "1",
        "DARKROOM_JOBS__CRASH_POINTS": json.dumps(orders),
        "DARKROOM_NOTIFICATIONS__SMTP_PASSWORD": MAIL_PASSWORD,
    }
    platform = stack.enter_context(running_platform(extra))
    platform.wait_healthy()
    add_tiny_base(platform, folders.mktemp("model"))
    return Bench(platform, points)
