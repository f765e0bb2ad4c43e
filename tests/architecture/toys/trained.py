"""Runs in a tree that has a toy of each: a job with all of them, from photos to images."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.diffusion.families.lookup import family_named
from flows.generation.images import generate_images
from flows.training.dreambooth import train_dreambooth
from storage.postgres.catalog import catalog
from storage.postgres.generation import workflow_submissions, workflows
from storage.postgres.jobs import job_files
from storage.records.catalog.catalog import FileRole
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.choices import GenerationBackend, TrainingMethod, TrainingOptimizer
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.records.jobs.training import TrainingJobRequest
from storage.settings import GenerationSettings, MlflowSettings, Settings
from storage.stores import Stores
from tests.flows.training import test_dreambooth, tiny
from tests.flows.training.test_dreambooth import end_of, submit

environment = test_dreambooth.environment


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One thread, so that a loaded machine is not slowed further; without MLflow, for the toy tracks."""
    jobs = settings.jobs.model_copy(update={"threads": 1, "silent_after_seconds": 30.0})
    generation = GenerationSettings(linger_seconds=0.0)
    mlflow = MlflowSettings(url="http://127.0.0.1:9")
    return settings.model_copy(update={"mlflow": mlflow, "jobs": jobs, "generation": generation})


@pytest.fixture
def prefect() -> Iterator[SyncPrefectClient]:
    """A client of the server that whoever runs this has started."""
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def toy_base(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, of the family `toy`."""
    folder = tmp_path / "toy"
    shutil.copytree(tiny_model, folder)
    card: dict[str, Any] = json.loads((folder / "darkroom.json").read_text())
    (folder / "darkroom.json").write_text(json.dumps({**card, "family": "toy"}))
    return folder


@pytest.mark.usefixtures("environment", "prefect")
def test_photos_become_a_model_by_the_toys_and_the_toy_draws(
    stores: Stores, toy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_TRACKING__TRACKERS", "toy")
    job = submit(stores, toy_base, method=TrainingMethod("toy"), optimizer=TrainingOptimizer("toy"))
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    ended = end_of(stores, job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    recipe = msgspec.convert(ended.request, TrainingJobRequest).recipe
    assert (recipe.family, recipe.method, recipe.optimizer) == ("toy", "toy", "toy")
    told = (stores.settings.data_folder / "toy-tracker.txt").read_text().splitlines()
    assert told[-1] == "FINISHED"
    assert any(line.startswith("1 loss ") for line in told)
    assert "4 sample-0" in told
    version = stores.database.run(catalog.version_of_job(job.id))
    assert version is not None
    assert version.base_model == "Toy 1.0"
    base, made = hashes(toy_base, stores, version.id)
    assert {path for path in base if base[path] != made[path]} == {"unet/diffusion_pytorch_model.safetensors"}

    request = WorkflowRequest(model=version.id, prompt="a mug", seed=7, count=4, backend=GenerationBackend("toy"))
    drawing, _ = stores.database.run(
        workflow_submissions.submit_workflow(request, job.account_id, stores.settings, seed=1)
    )
    assert generate_images() == 4
    assert end_of(stores, drawing.id).state is JobState.SUCCEEDED
    [step] = stores.database.run(workflows.steps_of_jobs([drawing.id]))
    assert step.backend == "toy"
    files = [one for one in stores.database.run(job_files.files(drawing.id)) if one.role is JobFileRole.IMAGE]
    colours = [Image.open(io.BytesIO(stores.blobs.read(one.sha256))).getpixel((0, 0)) for one in files]
    assert colours == [(7 + number, 0, 0) for number in range(4)]


def test_a_training_by_the_toys_goes_on_where_it_stopped(
    toy_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "FAMILY", family_named("toy"))
    toys = {"family": "toy", "method": "toy", "optimizer": "toy"}
    wanted = tiny.recipe(**toys, steps=4, checkpoint_every=2, prior_loss_weight=0.0)
    kept = tiny.KeptCheckpoints(tmp_path / "kept")
    whole = tiny.train_and_export(toy_base, tmp_path / "whole", wanted, kept).hashes
    (kept.folder / "4.safetensors").unlink()
    assert tiny.train_and_export(toy_base, tmp_path / "resumed", wanted, kept).hashes == whole
    assert kept.kept == [2, 4, 4]


def hashes(base: Path, stores: Stores, version_id: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The weights files of a base and of a version of it, by path."""
    made = {
        file.path: stores.blobs.read(file.sha256)
        for file in stores.database.run(catalog.files(version_id))
        if file.role is FileRole.FOLDER and file.path.endswith(".safetensors") and (base / file.path).exists()
    }
    return {path: (base / path).read_bytes() for path in made}, made
