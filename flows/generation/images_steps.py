"""The steps of generate-images; their order is in images.py.

All that the flow needs of torch is imported from here, before it claims a job: what cannot be imported fails no job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.diffusion.devices import this_machine as this_machine
from flows.generation.backends.lookup import backend_named
from flows.jobs.lifecycle import RunningJob
from flows.runs.artifacts import ArtifactBoard, image_link
from flows.runs.retries import STORE_RETRIES
from flows.training.adapters.files import DIFFUSERS_FILE
from flows.training.regularization_steps import fetch_base_folder
from storage.blobs import cached_folders
from storage.errors import JobCannotSucceed, NotFound
from storage.postgres.catalog import catalog
from storage.postgres.jobs import job_files
from storage.records.catalog.catalog import FileRole
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import JobFileRole
from storage.records.jobs.training import TrainingJobRequest
from storage.stores import Stores

# Prefect would hash the arguments of a task for its cache and pickle its result: these are threads, connections,
# models.
LIVE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


class ModelFolder:
    """A published model on this machine: its diffusers folder and its family. Of an adapter, the folder is its base's.

    adapter: the adapter's file, if the version is one. held_in: the element type that it was trained, and so is drawn,
    with.
    """

    def __init__(self, folder: Path, family: str, held_in: str, adapter: Path | None = None) -> None:
        self.folder, self.family, self.held_in, self.adapter = folder, family, held_in, adapter


@task(name="fetch-model", **LIVE, **STORE_RETRIES)
def fetch_model(job: RunningJob, version_id: int) -> ModelFolder:
    """The version's diffusers folder, verified when it is first copied here; in use until this process ends.

    Raises JobCannotSucceed when the version is an adapter and its base is gone.
    """
    job.report("fetch-model")
    version = job.run(lambda: catalog.version_by_id(version_id))
    files = job.run(lambda: catalog.files(version_id))
    folder = _folder(job.stores, version_id)
    members = {file.path: file.sha256 for file in files if file.role is FileRole.FOLDER}
    recipe = msgspec.convert(version.recipe, TrainingJobRequest).recipe
    own = cached_folders.use(job.stores.blobs, members, folder)
    if DIFFUSERS_FILE not in members:
        return ModelFolder(own, recipe.family, recipe.held_in)
    try:
        base = fetch_base_folder(job.stores, recipe.base_model_hash)
    except NotFound as error:
        raise JobCannotSucceed(f"Model version {version_id} is an adapter: {error}") from error
    return ModelFolder(base, recipe.family, recipe.held_in, own / DIFFUSERS_FILE)


@task(name="draw", **LIVE, **STORE_RETRIES)
def draw(job: RunningJob, board: ArtifactBoard, recipe: GenerationRecipe, model: ModelFolder) -> None:
    """Draw what is missing, store each image and show it; images of an earlier attempt are kept."""
    made = job.run(lambda: job_files.files(job.id))
    # Images are drawn and stored in order, so their number says where to go on; a gap cannot be.
    first = sum(file.role is JobFileRole.IMAGE for file in made)
    job.report("draw", first, recipe.count)
    backend = backend_named(recipe.backend)
    drawn = backend.draw(model.family, model.folder, recipe, first, model.adapter, held_in=model.held_in)
    for number, content in enumerate(drawn, first):
        job.check()
        job.reach(f"draw:{number}")
        keep_image(job, board, recipe, number, content)
        job.report("draw", number + 1, recipe.count)


def keep_image(job: RunningJob, board: ArtifactBoard, recipe: GenerationRecipe, number: int, content: bytes) -> None:
    """Bytes, then the row, then the picture on the flow run's page."""
    blob = job.stores.blobs.put(content)
    details: dict[str, object] = {"prompt": recipe.prompt, "seed": recipe.seed + number}
    job.run(
        lambda: job_files.put_file(
            job.id,
            job.attempt,
            name=f"image-{number:03d}.png",
            role=JobFileRole.IMAGE,
            sha256=blob.sha256,
            size=blob.size,
            media_type="image/png",
            details=details,
        )
    )
    board.image(f"image-{number:03d}", image_link(job.stores.settings, job.id, blob.sha256), recipe.prompt)


def _folder(stores: Stores, version_id: int) -> Path:
    return stores.cache_folder / "model-versions" / str(version_id)
