"""A base of the shape that people have trains, dies, goes on, is measured, exported, published, and opens elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from flows.jobs.metrics_document import read_document
from storage.postgres.catalog import catalog
from storage.postgres.jobs import job_files, jobs
from storage.records.catalog.catalog import FileRole
from storage.records.jobs.jobs import Job, JobFileRole, JobState
from storage.stores import Stores
from tests.flows.training.real_shapes import HALF, SD15, SMALL, Shape, write_base
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    end_of,
    environment,
    run_elsewhere,
    settings,
    submit,
)

STEPS = 6
SECONDS = 3600
NEEDED_GB = {SD15: 17.5}
"""Weights, gradients and moments of Stable Diffusion 1.5 in float32 are 14.6 GB; the rest are the libraries, and the
servers that run beside the training."""
SHAPES = [SMALL, *(pytest.param(shape, marks=pytest.mark.soak) for shape in (HALF, SD15))]
log = logging.getLogger("tests.flows.training")


@pytest.mark.parametrize("shape", SHAPES, ids=["small", "half", "sd15"])
@pytest.mark.timeout(9000)
def test_a_base_of_that_shape_ends_as_a_version_after_a_death(
    shape: Shape,
    stores: Stores,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],  # noqa: F811
) -> None:
    free = psutil.virtual_memory().available / 1e9
    if free < NEEDED_GB.get(shape, 0):
        pytest.skip(f"{free:.1f} GB of memory are free here, and this base takes {NEEDED_GB[shape]} to train")
    base = write_base(tmp_path / "base", shape)
    job = submit(stores, base, steps=STEPS, checkpoint_every=2, sample_every=99, token_learning_rate=0.0)
    assert run_elsewhere(job, 1, environment(**{"fit:5": f"die:{tmp_path / 'five'}"}), seconds=SECONDS).returncode < 0
    stores.database.run(jobs.sweep_silent(silent_after_seconds=0.0, max_silent_attempts=9))
    second = run_elsewhere(job, end_of(stores, job.id).attempt, environment(), seconds=SECONDS)
    assert end_of(stores, job.id).state is JobState.SUCCEEDED, second
    assert_opens(stores, job, tmp_path)
    peaks = peaks_of(stores, job)
    log.warning("peaks in GB: %s", peaks)
    if shape is not SMALL:  # it is lost beside what the libraries take
        assert {"resume", "fit", "evaluate", "export"} <= set(peaks), peaks
        assert max(peaks.values()) <= 1.1 * peaks["fit"], peaks


def peaks_of(stores: Stores, job: Job) -> dict[str, float]:
    """Peaks of memory by phase, in GB, as the second attempt measured them."""
    files = stores.database.run(job_files.files(job.id))
    document = stores.blobs.read(next(file.sha256 for file in files if file.role is JobFileRole.METRICS))
    prefix = "memory_peak_gb."
    return {
        point.name.removeprefix(prefix): point.value
        for point in read_document(document)
        if point.name.startswith(prefix)
    }


def assert_opens(stores: Stores, job: Job, folder: Path) -> None:
    """The single file opens in diffusers, with the tensors of the published folder."""
    version = stores.database.run(catalog.version_of_job(job.id))
    assert version is not None
    files = stores.database.run(catalog.files(version.id))
    for file in files:
        target = folder / "published" / (file.path if file.role is FileRole.FOLDER else "single.safetensors")
        target.parent.mkdir(parents=True, exist_ok=True)
        stores.blobs.fetch(file.sha256, target)
    config = str(folder / "published")
    options: dict[str, Any] = {"safety_checker": None, "local_files_only": True}
    single = StableDiffusionPipeline.from_single_file(f"{config}/single.safetensors", config=config, **options)
    whole = StableDiffusionPipeline.from_pretrained(config, **options)
    for part in ("unet", "vae", "text_encoder"):
        theirs, ours = (getattr(pipeline, part).state_dict() for pipeline in (single, whole))
        assert theirs.keys() == ours.keys()
        assert all(bool((theirs[name] == ours[name]).all()) for name in ours), part
