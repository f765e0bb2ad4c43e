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
from tests.platform_api.door import Door
from tests.platform_api.process import PROJECT, Process
from tests.storage.makers import a_data_set

MISSING = ("torch", "diffusers", "transformers", "pytorch_lightning", "accelerate", "mlflow", "prefect", "dask")
"""Top-level packages of the worker's libraries."""
REFUSING = f"""
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
"""


@pytest.fixture
def without_models(door: Door, tmp_path: Path) -> Process:
    """The API in a process that can import none of them. Python runs `sitecustomize` before anything else."""
    folder = tmp_path / "refusing"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(REFUSING)
    return Process(door.settings, variables={"PYTHONPATH": f"{folder}:{PROJECT}"})


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
    for name in MISSING:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            env={**os.environ, **without_models.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr
