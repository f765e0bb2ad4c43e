"""Workflows outlive the deaths of what draws them: each picture is kept once and charged once, and all end."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import psutil
import pytest

from storage.postgres.generation import workflows
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import TERMINAL, JobFileRole, JobState
from storage.stores import open_stores
from tests.faults.bench import Bench
from tests.faults.test_random_kills import FLOWS, a_seed, strike

log = logging.getLogger("tests.faults")

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine

VICTIMS = (FLOWS, FLOWS, "engine", "engine", "relay", "worker-light")


def a_request(version: int, chance: random.Random) -> dict[str, Any]:
    """A workflow of one to four steps, the later ones over a picture of the one before."""
    first = {"name": "base", "model": version, "prompt": "a sks mug", "count": chance.randint(1, 3), "steps": 4}
    steps = [{**first, "seed": chance.randrange(2**32)}]
    for number in range(chance.randrange(4)):
        source = {"$ref": steps[-1]["name"], "image": steps[-1]["count"] - 1}
        over = {"operation": "img2img", "image": source, "strength": 0.5, "name": f"over-{number}", "count": 1}
        steps.append({**first, **over, "seed": chance.randrange(2**32)})
    return {"workflow": steps}


def submitted(bench: Bench, version: int, chance: random.Random, count: int) -> dict[UUID, dict[str, Any]]:
    """Workflows that are committed, each with its request."""
    made: dict[UUID, dict[str, Any]] = {}
    for number in range(count):
        request = a_request(version, chance)
        response = bench.client.post("/generations", json={**request, "externalId": f"{chance.random()}-{number}"[2:]})
        assert response.status_code == 202, response.text
        made[UUID(response.json()["id"])] = request
    return made


def assert_all_end_and_each_picture_is_kept_once(
    bench: Bench, version: int, chance: random.Random, count: int, victims: Sequence[str], pause: float
) -> None:
    made = submitted(bench, version, chance, count)
    with open_stores(bench.platform.settings) as stores:

        def all_ended() -> bool:
            return all(stores.database.run(jobs.get(job_id)).state in TERMINAL for job_id in made)

        for victim in victims:
            time.sleep(chance.uniform(0, pause))
            if all_ended():
                break
            with suppress(psutil.NoSuchProcess, AssertionError):
                strike(bench, victim)
        bench.wait_for("all workflows to end", all_ended)
        for job_id, request in made.items():
            job = stores.database.run(jobs.get(job_id))
            # Three deaths in a row without a picture are one too many, and the workflow says so.
            assert job.state is JobState.SUCCEEDED or job.failure_code == "silent", job
            [workflow] = stores.database.run(workflows.of_jobs([job_id]))
            steps = stores.database.run(workflows.steps_of_jobs([job_id]))
            files = [one for one in stores.database.run(job_files.files(job_id)) if one.role is JobFileRole.IMAGE]
            kept = Counter(str(one.details["step"]) for one in files)
            assert workflow.charged == sum(step.picture_price * kept[step.name] for step in steps)
            if job.state is JobState.SUCCEEDED:
                assert kept == {step["name"]: step["count"] for step in request["workflow"]}
                assert workflow.charged == workflow.price
            assert len({(one.details["step"], one.details["number"]) for one in files}) == len(files)
    bench.wait_for("the stores to agree", lambda: bench.faults() == [], seconds=60)


def test_a_few_workflows_outlive_their_flow_and_their_engine(bench: Bench, straight_job: str) -> None:
    version = bench.model_version(straight_job)["id"]
    chance = random.Random(a_seed())
    victims = ["engine", FLOWS]
    assert_all_end_and_each_picture_is_kept_once(bench, version, chance, 6, victims, 1.0)


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_a_hundred_workflows_outlive_a_death_every_few_seconds(bench: Bench, straight_job: str) -> None:
    version = bench.model_version(straight_job)["id"]
    chance = random.Random(a_seed())
    victims = chance.choices(VICTIMS, k=40)
    assert_all_end_and_each_picture_is_kept_once(bench, version, chance, 100, victims, 6.0)
