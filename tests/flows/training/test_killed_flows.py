"""The main job with real stores, killed at every boundary between its steps, of each family and by each method."""

from __future__ import annotations

import json
import logging
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.training.dreambooth import train_dreambooth
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.stores import Stores
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training import test_dreambooth
from tests.flows.training.dying import COMBINATIONS, METHODS
from tests.flows.training.test_deaths import a_seed
from tests.flows.training.test_dreambooth import STEPS, end_of, run_elsewhere, submit, weights_of

log = logging.getLogger("tests.flows.training")

environment, settings = test_dreambooth.environment, test_dreambooth.settings

CARD = {"family": "sdxl", "resolution": 64, "sampler": {"steps": 2, "guidance_scale": 3.0}}


@pytest.fixture(scope="module")
def bases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny base model of each family, with its card."""
    folder = tmp_path_factory.mktemp("bases") / "sdxl"
    write_tiny_sdxl(folder)
    (folder / "darkroom.json").write_text(json.dumps(CARD))
    return {"sd1": tiny_model, "sdxl": folder}


@pytest.mark.soak  # tests/faults/test_jobs.py kills the same flow where workers run it
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("family", "method"), COMBINATIONS)
def test_a_flow_killed_at_every_boundary_publishes_the_bytes_of_one_that_ran_through(
    family: str,
    method: str,
    bases: dict[str, Path],
    stores: Stores,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],
) -> None:
    chance = random.Random(a_seed())
    # The last step too: fitted and stored, and nothing measured yet.
    steps = (chance.randrange(1, STEPS), STEPS)
    fit = tuple(f"fit:{step}" for step in steps)
    points = (
        "regularize",
        "after:regularize",
        *fit,
        "after:fit",
        "evaluate",
        "after:evaluate",
        "export",
        "after:export",
    )
    points += ("publish",)
    job = submit(stores, bases[family], method=TrainingMethod(method), **METHODS[method])
    for number, point in enumerate(points, 1):
        variables = environment(**{point: f"die:{tmp_path / point}"})
        killed = run_elsewhere(job, end_of(stores, job.id).attempt, variables)
        log.warning("%s %s: attempt %d dies at %s", family, method, number, point)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        time.sleep(0.1)
        stores.database.run(jobs.sweep_silent(silent_after_seconds=0.0, max_silent_attempts=9))
    ended = end_of(stores, job.id)
    # The last death came after the commit: there is nothing left to do.
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, len(points))
    # After it, because this one finds the class images drawn.
    straight = submit(stores, bases[family], method=TrainingMethod(method), **METHODS[method])
    assert train_dreambooth(straight.id, 1, return_state=True).is_completed()
    assert weights_of(stores, job.id) == weights_of(stores, straight.id)
    metrics = next(file for file in stores.database.run(job_files.files(job.id)) if file.role is JobFileRole.METRICS)
    found = [json.loads(line) for line in stores.blobs.read(metrics.sha256).splitlines()]
    assert [point["step"] for point in found if point["name"] == "loss"] == list(range(1, STEPS + 1))
