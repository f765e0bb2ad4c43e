"""Sets of class images: their recipe, the base model that draws them, and the drawing of what is missing.

A training flow calls `fill_set` in its own process: on its own work pool it would wait for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from flows.diffusion.devices import drawing_devices, this_machine
from flows.diffusion.families.protocol import Components
from flows.diffusion.sampled_sets import DaskWorkers, DrawnBatch, draw_set
from flows.runs.retries import run_with_retries, with_retries
from flows.training.photos.pictures import StoredPicture, is_whole
from storage.blobs import cached_folders
from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing
from storage.postgres.connection import Database
from storage.postgres.jobs import base_models, sampled_sets
from storage.postgres.jobs.sampled_sets import SampledImage
from storage.records.jobs.base_models import BaseModel
from storage.records.jobs.sampled_sets import SamplingRecipe, class_images_recipe
from storage.settings import Settings
from storage.stores import Stores


def class_recipe(base: BaseModel, class_word: str, count: int, settings: Settings) -> SamplingRecipe:
    """The set that a training with the base model's defaults would draw: the same key, so that they share it."""
    return class_images_recipe(
        base_model_hash=base.folder_hash,
        family=base.facts.family,
        resolution=base.facts.resolution,
        class_prompt=f"a photo of a {class_word}",
        count=count,
        sampler=base.facts.sampler,
        dtype=base.facts.training.held_in,
        **msgspec.structs.asdict(this_machine(settings)),
    )


def fetch_base_folder(stores: Stores, folder_hash: str) -> Path:
    """The base model's folder on this machine, its files verified when they are first copied here. Raises NotFound.

    It is in use from now on until this process ends: retention does not delete it."""

    files = stores.database.run(base_models.files_of(folder_hash))
    target = stores.cache_folder / "base-models" / folder_hash
    return cached_folders.use(stores.blobs, {file.path: file.sha256 for file in files}, target)


def fill_set(
    stores: Stores,
    recipe: SamplingRecipe,
    folder: Path,
    *,
    components: Components | None = None,
    boundary: Callable[[int, int], None] = lambda done, total: None,
) -> list[StoredPicture]:
    """Every image of a set, drawn where missing or damaged. One process fills a set; others wait and find it whole.

    `boundary` is called with the images done and the total before each batch is stored; it may raise to stop.
    """
    total = len(recipe.prompts)
    found = _whole_set(stores, recipe)
    if found is not None:
        return found
    with _only_filler(stores.database, recipe, lambda: boundary(0, total)):
        present = run_with_retries(stores, partial(sampled_sets.ensure, recipe))
        # The rows alone do not do: the bytes of a set that nobody asked for may have been swept, or are damaged.
        whole = [image.position for image in present if is_whole(stores.blobs, image.sha256)]
        done = len(whole)

        def write(batch: DrawnBatch) -> None:
            nonlocal done
            boundary(done, total)
            rows = [_put(stores.blobs, position, content) for position, content in batch.images.items()]
            run_with_retries(stores, partial(sampled_sets.put_batch, recipe.key(), rows))
            done += len(rows)

        draw_set(recipe, folder, whole, write, components=components, workers=_workers(recipe, folder, stores.settings))
    return _opened(stores, run_with_retries(stores, partial(sampled_sets.images, recipe)))


def _whole_set(stores: Stores, recipe: SamplingRecipe) -> list[StoredPicture] | None:
    """The images of a set that has them all; without its lock, which who draws more of them may hold for hours."""
    rows = run_with_retries(stores, partial(sampled_sets.ensure, recipe))
    if len(rows) < len(recipe.prompts):
        return None
    try:
        return _opened(stores, rows)
    except (BlobMissing, BlobCorrupted):
        return None


def _opened(stores: Stores, rows: Sequence[SampledImage]) -> list[StoredPicture]:
    for row in rows:
        stores.blobs.read(row.sha256)  # a damaged one is found before anything is learned from the others
    return [StoredPicture(partial(_read, stores, row.sha256)) for row in rows]


def _read(stores: Stores, sha256: str) -> bytes:
    return with_retries(stores, lambda: stores.blobs.read(sha256))


def _put(blobs: BlobStore, position: int, content: bytes) -> SampledImage:
    blob = blobs.put(content)
    return SampledImage(position=position, sha256=blob.sha256, size=blob.size)


def _workers(recipe: SamplingRecipe, folder: Path, settings: Settings) -> DaskWorkers:
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return DaskWorkers(drawing_devices(recipe.threads, size, settings))


@contextmanager
def _only_filler(database: Database, recipe: SamplingRecipe, check: Callable[[], None]) -> Generator[None]:
    name = sampled_sets.lock_name(recipe.key())
    while True:
        # Tried again and again instead of waited for: while another process draws, this job must learn that it was
        # cancelled.
        with database.session_lock(name) as held:
            if held:
                yield
                return
        check()
        time.sleep(0.5)
