"""The main job end to end on real stores: Postgres, Valkey, blobs, Prefect and MLflow, with a tiny model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient

from deployments.base_models.registration import add_base_model
from deployments.local.environment import settings_environment
from flows.generation.engine.engine import Engine
from flows.generation.engine.model_files import BlobFiles
from flows.generation.engine.server import served
from flows.generation.images import generate_images
from flows.jobs.lifecycle import RunningJob
from flows.training import evaluation
from flows.training.dreambooth import train_dreambooth
from storage.blobs.blurhashes import blurhash_of
from storage.blobs.weights import check_weights
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, images, listing, models
from storage.postgres.generation.workflow_submissions import submit_workflow
from storage.postgres.jobs import data_sets, job_files, jobs, sampled_sets, submissions
from storage.records.catalog.catalog import Checked, FileRole, ModelVersion
from storage.records.catalog.listing import ImageFilter, ImageSort
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.choices import LoraTargets, TrainingMethod
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.jobs import Job, JobFileRole, JobState
from storage.records.jobs.training import TrainingJobRequest, TrainingRequest, regularization_recipe
from storage.settings import GenerationSettings, MlflowSettings, Settings
from storage.stores import Stores
from tests.flows.diffusion.reference import drawn_by
from tests.flows.training.checkpointing.written import WrittenBytes
from tests.flows.training.tiny import pictures
from tests.warm import run_warm

STEPS = 6
ADAPTER: dict[str, Any] = {
    "method": TrainingMethod.LORA,
    "token_learning_rate": 0.0,
    "learning_rate": 1e-2,
    "text_encoder_learning_rate": 1e-2,
    "text_encoder_steps": 4,
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "lora_targets": LoraTargets.TRANSFORMER,
}
"""An adapter whose steps are large enough to be seen."""


DRIFT_SIZES = ("_DRIFT_TIMESTEPS", "_DRIFT_LATENTS")
"""How much of the noise drift is measured: in these jobs one latent at one time, a twentieth of the passes."""


@pytest.fixture
def settings(settings: Settings, mlflow_settings: MlflowSettings) -> Settings:
    """One thread, so that a loaded machine is not slowed further; MLflow of this session."""
    jobs_ = settings.jobs.model_copy(update={"threads": 1, "silent_after_seconds": 30.0})
    generation = GenerationSettings(linger_seconds=0.0)
    return settings.model_copy(update={"mlflow": mlflow_settings, "jobs": jobs_, "generation": generation})


@pytest.fixture
def environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, prefect: SyncPrefectClient
) -> Callable[..., dict[str, str]]:
    """Makes flows in this process, and in others, read the test's settings."""
    variables = settings_environment(settings)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for size in DRIFT_SIZES:
        monkeypatch.setattr(evaluation, size, 1)

    def of_another_process(**crash_points: str) -> dict[str, str]:
        points = {"DARKROOM_JOBS__CRASH_POINTS": json.dumps(crash_points)}
        return {**os.environ, **variables, **points, "PYTHONPATH": os.getcwd(), "PREFECT_API_URL": str(prefect.api_url)}

    return of_another_process


def photos(stores: Stores, account: UUID, shown: Sequence[tuple[Image.Image, str, int]] = ()) -> UUID:
    """Photos as an upload would leave them, each with its caption and how often it counts; two if none are given."""
    first, second = pictures(2)
    rows: list[DataSetImage] = []
    for position, (image, caption, repeats) in enumerate(shown or [(first, "on the beach", 1), (second, "", 2)]):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        blob = stores.blobs.put(buffer.getvalue())
        rows.append(
            DataSetImage(
                position=position,
                name=f"{position}.png",
                sha256=blob.sha256,
                size=blob.size,
                width=64,
                height=64,
                caption=caption,
                repeats=repeats,
            )
        )
    return stores.database.run(data_sets.create(account, "photos", rows)).id


def submit(stores: Stores, tiny_model: Path, **wanted: Any) -> Job:
    """A submitted training job on the tiny model."""
    account = stores.database.run(accounts.ensure_account("owner")).id
    add_base_model(stores, tiny_model, "tiny")
    fields: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 1,
        "regularization_count": 3,
        "checkpoint_every": 2,
        "sample_every": 4,
        "token_learning_rate": 1e-2,
        "seed": 5,
        # Most of a tiny job is its evaluation, whose whole size is that of tests/flows/training/test_evaluation.py.
        "evaluation_scenes": ("on the beach", "in the snow"),
    }
    request = TrainingRequest(
        data_set_id=photos(stores, account), class_word="mug", base_model="tiny", **(fields | wanted)
    )
    job, _ = stores.database.run(submissions.submit_training(request, account, stores.settings, seed=1))
    return job


def weights_of(stores: Stores, job_id: UUID) -> dict[str, str]:
    """The files that a job published, by path."""
    version = stores.database.run(catalog.version_of_job(job_id))
    assert version is not None
    return {file.path: file.sha256 for file in stores.database.run(catalog.files(version.id))}


def end_of(stores: Stores, job_id: UUID) -> Job:
    return stores.database.run(jobs.get(job_id))


def reported_phases(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """The phases that jobs report from now on, in their order, with the numbers of the first report."""
    phases: dict[str, tuple[Any, ...]] = {}
    true_report = RunningJob.report

    def report(running: RunningJob, phase: str, *numbers: Any) -> None:
        phases.setdefault(phase, numbers)
        true_report(running, phase, *numbers)

    monkeypatch.setattr(RunningJob, "report", report)
    return phases


@pytest.mark.usefixtures("environment")
def test_photos_become_a_catalogued_model_and_the_model_draws(
    stores: Stores, tiny_model: Path, tmp_path: Path, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(stores, tiny_model)
    written, phases = WrittenBytes(stores, monkeypatch), reported_phases(monkeypatch)
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    of_fit = ["load", "encode", "setup", "fit"]
    assert [phase for phase in phases if phase in of_fit] == of_fit
    assert all(phases[phase] == () for phase in of_fit[:3]), "none of them counts steps"
    ended = end_of(stores, job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    version = stores.database.run(catalog.version_of_job(job.id))
    assert version is not None
    assert ended.model_version_id == version.id
    assert version.trained_words[0].endswith(" mug")
    assert version.registered_as is not None
    assert_evaluated(version.evaluation or {})
    written.assert_within_the_bound(job, tiny_model)

    files = stores.database.run(catalog.files(version.id))
    assert files[0].role is FileRole.WEIGHTS
    assert files[0].hashes.auto_v2 == files[0].sha256[:10].upper()
    assert (files[0].checked, files[0].fp) == (Checked.STRUCTURE, "fp16")  # the tiny model is of no known family
    folder = {file.path: file.sha256 for file in files if file.role is FileRole.FOLDER}
    pipeline = DiffusionPipeline.from_pretrained(stores.blobs.fetch_folder(folder, tmp_path / "folder"))
    assert drawn_by(pipeline, "a photo of a mug", num_inference_steps=1, output_type="np").shape == (1, 64, 64, 3)
    stores.blobs.fetch(files[0].sha256, tmp_path / "single.safetensors")
    check_weights(tmp_path / "single.safetensors")

    made = stores.database.run(job_files.files(job.id))
    roles = [file.role for file in made]
    assert roles.count(JobFileRole.GRID) == roles.count(JobFileRole.METRICS) == roles.count(JobFileRole.EVALUATION) == 1
    assert {file.step for file in made if file.role is JobFileRole.SAMPLE} == {4, STEPS}
    points = stores.blobs.read(next(file.sha256 for file in made if file.role is JobFileRole.METRICS)).splitlines()
    losses = [point for point in map(json.loads, points) if point["name"] == "loss"]
    assert [point["step"] for point in losses] == list(range(1, STEPS + 1))
    assert stores.database.run(job_files.checkpoints(job.id)) == []
    assert not (stores.settings.data_folder / "work" / str(job.id)).exists()
    assert_shown(stores, version, str(job.request["model_name"]))
    assert_drawn(stores, version.id, ended.account_id)


def assert_evaluated(figures: dict[str, Any]) -> None:
    assert figures["measured_by"].endswith("judge.Judge")
    assert figures["images"] == 4 * len(figures["scenes"])
    assert figures["photos"] == 2
    for name in ("subject_fidelity", "subject_fidelity_base", "subject_fidelity_photos", "class_similarity"):
        assert -1 <= figures[name] <= 1
    assert figures["class_noise_drift"] > 0


def assert_shown(stores: Stores, version: ModelVersion, model_name: str) -> None:
    """The catalogue's list of images holds every picture of the subject, the first seed of each scene first."""
    shown = stores.database.run(images.of_versions([version.id], 100))
    scenes = (version.evaluation or {})["scenes"]
    assert isinstance(scenes, list)
    assert [image.meta and (image.meta["seed"], image.meta["prompt"]) for image in shown] == [
        (seed, f"a photo of a sks mug {scene}") for seed in range(4) for scene in scenes
    ]
    for image in shown:
        picture = Image.open(io.BytesIO(stores.blobs.read(image.sha256)))
        assert picture.size == (image.width, image.height) == (64, 64)
        assert (image.blurhash, image.nsfw_level) == (blurhash_of(picture), 1)
    assert shown[0].meta is not None
    named = {name: shown[0].meta[name] for name in ("Model", "Size", "sampler", "negativePrompt")}
    assert named == {"Model": model_name, "Size": "64x64", "sampler": "DDIM", "negativePrompt": ""}
    assert (shown[0].meta["steps"], shown[0].meta["cfgScale"]) == (2, 3.0)
    assert listed(stores, version.id) == set(), "a fine-tune is private until its owner publishes it"
    model = stores.database.run(catalog.model_by_id(version.model_id))
    stores.database.run(models.publish(model, opens=True))
    assert listed(stores, version.id) == {image.id for image in shown}


def listed(stores: Stores, version_id: int) -> set[int]:
    """The images of a version that everybody finds."""
    wanted = ImageFilter(levels=1, version_id=version_id)
    return set(stores.database.run(listing.images(wanted, ImageSort.NEWEST, limit=100)).ids)


def assert_drawn(stores: Stores, version_id: int, account: UUID) -> None:
    """The engine draws the version, by way of the flow, as our sampler does."""
    request = WorkflowRequest(model=version_id, prompt="a photo of a mug", count=2, seed=3, exact=True)
    job, _ = stores.database.run(submit_workflow(request, account, stores.settings, seed=1))
    with an_engine(stores):
        assert generate_images() == 2
    assert end_of(stores, job.id).state is JobState.SUCCEEDED
    drawn = [file for file in stores.database.run(job_files.files(job.id)) if file.role is JobFileRole.IMAGE]
    assert [file.name for file in drawn] == ["0-000.png", "0-001.png"]
    assert [(file.details["seed"], file.details["shape"]) for file in drawn] == [(3, 1), (4, 1)]
    assert Image.open(io.BytesIO(stores.blobs.read(drawn[0].sha256))).size == (64, 64)


@contextmanager
def an_engine(stores: Stores) -> Iterator[Engine]:
    """An engine of the platform, in a thread, at the socket of the settings."""
    stores.settings.engine_socket.parent.mkdir(parents=True, exist_ok=True)
    files = BlobFiles(stores.blobs, stores.cache_folder)
    engine = Engine(files, files.picture, torch.device("cpu"), 10**9)
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        with served(engine, {}, stores.settings.engine_socket):
            yield engine
    finally:
        engine.stop()
        thread.join(30)


@pytest.mark.usefixtures("environment")
def test_a_second_job_uses_the_set_of_the_first_and_equal_recipes_give_equal_bytes(
    stores: Stores, tiny_model: Path
) -> None:
    first, second = submit(stores, tiny_model), submit(stores, tiny_model)
    assert train_dreambooth(first.id, 1, return_state=True).is_completed()
    ran = end_of(stores, first.id)
    recipe = regularization_recipe(msgspec.convert(ran.request, TrainingJobRequest).recipe)
    assert (recipe.threads, recipe.device, "torch" in recipe.libraries) == (1, "cpu", True)
    assert ran.recipe_hash != first.recipe_hash
    drawn = stores.database.run(sampled_sets.images(recipe))
    assert len(drawn) == 3
    stores.blobs.delete(drawn[0].sha256)  # a set that lost an image is drawn again, to the same bytes
    assert train_dreambooth(second.id, 1, return_state=True).is_completed()
    assert stores.database.run(sampled_sets.images(recipe)) == drawn
    assert stores.blobs.exists(drawn[0].sha256)
    assert weights_of(stores, first.id) == weights_of(stores, second.id)


FLOW = f"""
import sys
from uuid import UUID
from flows.training import evaluation
from flows.training.dreambooth import train_dreambooth
for size in {DRIFT_SIZES}:
    setattr(evaluation, size, 1)
train_dreambooth(UUID(sys.argv[1]), int(sys.argv[2]))
"""


def run_elsewhere(
    job: Job, attempt: int, variables: dict[str, str], *, program: str = FLOW, seconds: float = 500
) -> subprocess.CompletedProcess[str]:
    return run_warm(program, str(job.id), str(attempt), environment=variables, seconds=seconds)
