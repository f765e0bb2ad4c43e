"""Accepted work finishes once, with the same bytes, whatever dies."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from uuid import UUID

import psutil
import pytest

from deployments.local.servers.prefect_http import prefect_http
from deployments.local.workers.warm_starts import FLOW_RUN_NAME
from flows.starter.world import held_out_subjects
from storage.postgres.connection import Query
from storage.stores import open_stores
from tests.faults.bench import Bench
from tests.faults.shared import PLACES

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine

SERVICES = ("api", "relay", "prefect", "mlflow", "valkey", "postgres")


def assert_done_once(bench: Bench, job_id: str, straight: dict[str, str]) -> dict[str, Any]:
    assert bench.weights(job_id) == straight
    job = bench.job(job_id)
    bench.wait_for(
        "MLflow's run to end", lambda: [run.info.status for run in bench.tracking_runs(job_id)] == ["FINISHED"]
    )
    [run] = bench.tracking_runs(job_id)
    client_steps = run.data.metrics
    assert client_steps, "the tracking run has no metrics"
    bench.wait_for("the stores to agree", lambda: bench.faults() == [], seconds=60)
    return job


def kill_at(bench: Bench, place: str, *, with_worker: bool) -> None:
    """kill -9 the flow's process once it is held at a place, and its worker with it."""
    bench.hold(place)
    flow = bench.platform.flow_processes()
    assert [process.name() for process in flow if process.name() == FLOW_RUN_NAME], "the flow run was started cold"
    killed = {"worker-training": bench.platform.kill("worker-training")} if with_worker else {}
    for process in flow:
        process.kill()
    if killed:
        bench.platform.wait_healthy(restarted=killed)


def forget_class_images(bench: Bench) -> None:
    """The next job finds no class image drawn, and has to draw the same ones again."""
    statement = (
        "delete from sampled_images using sampled_sets set where set.recipe_hash = sampled_images.recipe_hash"
        " and set.recipe -> 'prompts' ->> 0 = %(prompt)s returning position"
    )
    with open_stores(bench.platform.settings) as stores:
        drawn = Query(statement, {"prompt": f"a photo of a {held_out_subjects()[0].class_word}"}, len)
        assert stores.database.run(drawn) > 0


def assert_killed_in_every_phase_gives_the_same(
    bench: Bench, straight: dict[str, str], *, with_worker: Collection[str], places: Sequence[str] = PLACES
) -> None:
    forget_class_images(bench)
    bench.points.arm(*places)
    job_id = bench.submit()
    for place in places:
        kill_at(bench, place, with_worker=place in with_worker)
    job = assert_done_once(bench, job_id, straight)
    assert job["attempt"] == 1 + len(places)


def test_a_job_killed_in_every_phase_gives_the_bytes_of_one_that_ran_through(
    bench: Bench, straight: dict[str, str]
) -> None:
    once_each = ("regularize", "fit:6", "export")
    assert_killed_in_every_phase_gives_the_same(bench, straight, with_worker=["fit:6"], places=once_each)


@pytest.mark.soak
@pytest.mark.parametrize("with_worker", [(), PLACES], ids=["alone", "with its worker"])
def test_a_job_killed_in_every_phase_alone_and_one_together_with_its_worker(
    bench: Bench, straight: dict[str, str], with_worker: Sequence[str]
) -> None:
    assert_killed_in_every_phase_gives_the_same(bench, straight, with_worker=with_worker)


@pytest.mark.soak
def test_prefect_shows_the_run_of_a_process_that_died_with_its_worker_as_crashed(bench: Bench) -> None:
    bench.points.arm("fit:2")
    job_id = bench.submit()
    bench.hold("fit:2")
    flow_run = bench.row(job_id).flow_run_id
    kill_at(bench, "fit:2", with_worker=True)
    bench.points.disarm("fit:2")
    assert bench.wait_for_end(job_id)["state"] == "succeeded"
    with prefect_http(bench.platform.settings.prefect) as prefect:

        def is_crashed() -> bool:
            return prefect.get(f"flow_runs/{flow_run}").json()["state"]["type"] == "CRASHED"

        bench.wait_for("the heartbeat's automation", is_crashed)


def test_every_service_killed_in_turn_during_a_job(bench: Bench, straight: dict[str, str]) -> None:
    bench.points.arm("fit:2")
    job_id = bench.submit()
    bench.hold("fit:2")
    for part in (*SERVICES, "worker-light"):
        old = bench.platform.kill(part)
        bench.platform.wait_healthy(restarted={part: old})
        assert bench.platform.part(part).restarts >= 1
    bench.points.disarm("fit:2")
    assert_done_once(bench, job_id, straight)


def test_cancelling_stops_the_process_and_frees_its_memory(bench: Bench) -> None:
    job_id = bench.submit(steps=20_000, checkpointEvery=20_000, sampleEvery=20)
    bench.wait_for("the fit", lambda: (bench.job(job_id)["progress"] or {}).get("step", 0) > 30)
    processes = bench.platform.flow_processes()
    assert processes
    started = time.monotonic()
    response = bench.client.post(f"/training-jobs/{job_id}/cancel")
    assert response.status_code == 202, response.text
    assert bench.wait_for_end(job_id)["state"] == "cancelled"
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive, f"still there {time.monotonic() - started:.0f} s after the cancel"
    files = bench.client.get(f"/training-jobs/{job_id}/files").json()["items"]
    assert any(file["role"] == "sample" for file in files), files


def assert_burst_runs_in_order(bench: Bench, name: str, *, jobs: int, repeated: int) -> None:
    keys = [f"{name}-{number}" for number in range(jobs)] + [f"{name}-{number}" for number in range(repeated)]
    bench.data_set()  # else each thread makes one
    with ThreadPoolExecutor(len(keys)) as pool:
        ids = list(pool.map(lambda key: bench.submit(key=key, steps=1, regularizationCount=1), keys))
    assert len(set(ids)) == jobs
    assert ids[jobs:] == ids[:repeated]
    ended = [bench.wait_for_end(job_id) for job_id in set(ids)]
    assert {job["state"] for job in ended} == {"succeeded"}
    rows = sorted((bench.row(job_id) for job_id in set(ids)), key=lambda job: job.sequence)
    first_runs = [f"training-{str(row.id)[:8]}-1" for row in rows]
    assert _by_creation(bench, first_runs) == first_runs
    undisturbed = [row.id for row in rows if row.attempt == 1]  # a slow machine may make one look silent
    assert len(undisturbed) > 1, rows
    times = sorted((job["startedAt"], job["endedAt"]) for job in ended if UUID(job["id"]) in undisturbed)
    assert all(before[1] <= after[0] for before, after in pairwise(times)), times


def _by_creation(bench: Bench, names: Sequence[str]) -> list[str]:
    """Names of flow runs in the order in which they were given to Prefect.

    It starts them in that order but for one whose row is locked at that moment, as while it is marked late.
    """
    with prefect_http(bench.platform.settings.prefect) as prefect:
        body = {"flow_runs": {"name": {"any_": list(names)}}}
        found = prefect.post("flow_runs/filter", json=body).raise_for_status().json()
    return [run["name"] for run in sorted(found, key=lambda run: run["created"])]


def test_five_submissions_at_once_with_repeated_keys(bench: Bench) -> None:
    """Three jobs: one runs, one is next, and one must not overtake it."""
    assert_burst_runs_in_order(bench, "burst", jobs=3, repeated=2)


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_fifty_submissions_at_once_with_ten_repeated_keys(bench: Bench) -> None:
    assert_burst_runs_in_order(bench, "great-burst", jobs=40, repeated=10)
