"""Everything is killed at random moments of every phase, while work is being done, and each job ends once."""

from __future__ import annotations

import logging
import os
import random
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

from deployments.local.servers.prefect_http import prefect_http
from tests.faults.bench import ENDED, Bench
from tests.faults.test_jobs import SERVICES, assert_done_once

log = logging.getLogger("tests.faults")

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine

FLOWS = "every flow run"
PHASES = ("", "regularize", "fit:3", "fit:6", "evaluate", "export")
"""The phases of a job by the points at which they are noticed; the first has none."""


def a_seed() -> int:
    """Another one each time; what a failed test has printed can be given again in TEST_SEED."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**32))
    log.warning("TEST_SEED=%d", seed)
    return seed


def strike(bench: Bench, victim: str) -> None:
    """kill -9 a service, or every flow run and what it has started, at this very moment."""
    log.warning("%s: %s dies", time.strftime("%H:%M:%S"), victim)
    if victim == FLOWS:
        bench.wait_for("a flow run", lambda: bool(bench.platform.flow_processes()))
        for process in bench.platform.flow_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
    else:
        old = bench.platform.kill(victim)
        bench.platform.wait_healthy(restarted={victim: old})


def let_reconcile(bench: Bench) -> None:
    """What its schedule does every ten minutes: it ends the tracking run of a job whose end MLflow did not hear."""
    with prefect_http(bench.platform.settings.prefect) as prefect:
        found = prefect.get("deployments/name/reconcile/reconcile").raise_for_status().json()
        prefect.post(f"deployments/{found['id']}/create_flow_run", json={}).raise_for_status()


def assert_struck_in_every_phase_gives_the_same(bench: Bench, seed: int, images: int) -> None:
    """Everything dies once, at a random moment of a random phase, each phase meets a death, and the job works on."""
    chance = random.Random(seed)
    victims = chance.sample((*SERVICES, FLOWS), len(SERVICES) + 1)
    bench.points.arm(*PHASES[1:])
    job_id = bench.submit(regularizationCount=images)
    for number, phase in enumerate(PHASES):
        if phase:
            bench.hold(phase)
            bench.points.disarm(phase)  # it has begun, and goes on
        for victim in victims[number :: len(PHASES)]:
            time.sleep(chance.uniform(0, 1))
            log.warning("in %s:", phase or "the beginning")
            strike(bench, victim)
    bench.wait_for_end(job_id)
    straight = bench.weights(bench.submit(regularizationCount=images))
    if [run.info.status for run in bench.tracking_runs(job_id)] != ["FINISHED"]:
        let_reconcile(bench)
    assert_done_once(bench, job_id, straight)


@pytest.mark.soak
def test_everything_killed_once_at_random_moments_of_every_phase(bench: Bench) -> None:
    assert_struck_in_every_phase_gives_the_same(bench, a_seed(), 8)


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_everything_killed_at_random_moments_of_every_phase_ten_times(bench: Bench) -> None:
    seed = a_seed()
    for number in range(10):
        assert_struck_in_every_phase_gives_the_same(bench, seed + number, 20 + number)


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_a_long_job_outlives_a_death_every_few_seconds(bench: Bench) -> None:
    chance = random.Random(a_seed())
    long: dict[str, Any] = {"steps": 60, "checkpointEvery": 5, "sampleEvery": 20}
    straight = bench.weights(bench.submit(**long))
    job_id, struck_at = bench.submit(**long), 0
    while (job := bench.job(job_id))["state"] not in ENDED:
        time.sleep(chance.uniform(0, 3))
        step = (job["progress"] or {}).get("step", 0)
        victim = chance.choice((*SERVICES, FLOWS))
        # Three attempts in a row without a newer checkpoint fail a job, and rightly so.
        if victim != FLOWS:
            strike(bench, victim)
        elif step >= struck_at + 6:
            strike(bench, victim)
            struck_at = step
    let_reconcile(bench)
    assert_done_once(bench, job_id, straight)
