"""A flow run that dies at any point is followed by one that keeps what there is: each picture once, charged once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.jobs.sweeps import sweep_silent_jobs
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.generation.bench import charge_of, ended, pictures, row_of, steps_of, wait_until
from tests.flows.generation.test_images import HIRES, a_workflow, counted
from tests.warm import run_warm

FLOW = """
from flows.generation import images_steps
from flows.generation.images import generate_images
from tests.flows.generation.bench import ToyBackend

images_steps.open_backends = lambda stores: {"local": ToyBackend()}
generate_images()
"""
BETWEEN = ("drawn:base:0", "stored:base:1", "step-drawn:base", "workflow-drawn")
ALL = (
    *("claimed", "step-begun:base", "drawn:base:0", "stored:base:0", "kept:base:0", "stored:base:1", "kept:base:1"),
    *("step-drawn:base", "step-ended:base", "step-begun:large", "stored:large:0", "kept:large:0", "workflow-drawn"),
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """However often it dies, a workflow is tried again."""
    settings.generation.linger_seconds = 0.0
    settings.jobs.max_silent_attempts = 50
    return settings


@pytest.mark.parametrize("points", [BETWEEN, pytest.param(ALL, marks=pytest.mark.soak)], ids=["between", "everywhere"])
def test_a_workflow_whose_flow_is_killed_at_each_point_is_drawn_and_charged_once(
    stores: Stores, environment: dict[str, str], prefect: SyncPrefectClient, tmp_path: Path, points: tuple[str, ...]
) -> None:
    job, other = a_workflow(stores.database, *HIRES), a_workflow(stores.database)
    armed = {point: f"die:{tmp_path / point.replace(':', '-')}" for point in points}
    variables = {
        **environment,
        "DARKROOM_JOBS__CRASH_POINTS": json.dumps(armed),
        "PREFECT_API_URL": str(prefect.api_url),
    }
    deaths = 0
    while not ended(stores.database, job, other):
        ran = run_warm(FLOW, environment=variables, seconds=60)
        assert ran.returncode in (0, -9), ran.stderr
        deaths += ran.returncode == -9
        if ran.returncode:
            sweep(stores)
    assert deaths == len(points)

    for one, made in ((job, 3), (other, 1)):
        assert row_of(stores.database, one).state is JobState.SUCCEEDED
        assert len(pictures(stores.database, one)) == made
        assert charge_of(stores.database, one).charged == 2 * made
        files = stores.database.run(job_files.files(one.id))
        assert len(files) == made + (one is job), "its grid, and nothing else"
        assert all(stores.blobs.exists(file.sha256) for file in files)
    assert [step.state for step in steps_of(stores.database, job)] == ["succeeded", "succeeded"]
    assert [one["amount"] for one in counted(stores)] == [1, 1], "each workflow counts once"
    assert sum(file.role is JobFileRole.GRID for file in stores.database.run(job_files.files(job.id))) == 1


def sweep(stores: Stores) -> None:
    """Until every workflow of the dead process has another attempt."""

    def none_is_held() -> bool:
        sweep_silent_jobs(stores.database, stores.settings.jobs)
        return not any(row.state is JobState.RUNNING for row in stores.database.run(jobs.alive()))

    wait_until(none_is_held)
