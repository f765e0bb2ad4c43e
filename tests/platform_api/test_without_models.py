"""The API runs where no model library is installed: what a job's work needs, the worker that claims it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from storage.postgres.jobs import jobs
from storage.records.jobs.training import TrainingJobRequest
from tests.extras import MODELS_AND_PIPELINES, environment_of
from tests.platform_api.door import Door
from tests.platform_api.process import Process
from tests.storage.makers import a_data_set

MODULES = [name.replace("-", "_") for name in MODELS_AND_PIPELINES]


@pytest.fixture
def without_models(door: Door, tmp_path: Path) -> Process:
    """The API in a process that can import what the extra `api` installs, and nothing else."""
    return Process(door.settings, variables=environment_of(tmp_path / "hidden", "api"))


def test_it_takes_a_training_job_and_leaves_the_machine_to_the_worker(door: Door, without_models: Process) -> None:
    data_set = a_data_set(door.database, door.account_id)
    with without_models, httpx.Client(base_url=without_models.url, timeout=30) as client:
        headers = {"Authorization": f"Bearer {door.key}"}
        wanted = {"dataSetId": str(data_set), "classWord": "mug"}
        submitted = client.post("/api/v1/training-jobs", json=wanted, headers=headers)
        models = client.get("/api/v1/models")
    assert (submitted.status_code, models.status_code) == (202, 200), submitted.text
    job = door.database.run(jobs.get(submitted.json()["id"]))
    recipe = msgspec.convert(job.request, TrainingJobRequest).recipe
    assert (recipe.threads, recipe.libraries, recipe.device) == (0, {}, "")


def test_the_process_of_this_test_can_import_none_of_them(without_models: Process) -> None:
    program = f"from importlib.util import find_spec; print([name for name in {MODULES} if find_spec(name)])"
    environment = {**os.environ, **without_models.variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
