"""Fixed sets of images drawn from a base model: regularization images and the base's floor in an evaluation.

A set is drawn in batches. One that lacks an image is drawn whole, since the size of a batch decides how it is rounded
(batches.py); only what is missing of it is written, so that no image that jobs already learned from changes.
Equal recipes produce equal bytes on one machine, and the images of a smaller set are the first of a larger one.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dask.distributed import Client, as_completed
from PIL import Image

from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.diffusion.memory import return_freed
from flows.diffusion.sampler import draw_images
from flows.runs.dask_cluster import drawing_client, progress_reported
from storage.records.jobs.sampled_sets import SamplingRecipe

# A cluster has to start, and each of its processes imports torch and loads the model: it must save more than that.
FAN_OUT_SECONDS = 60.0


@dataclass(frozen=True)
class DrawnBatch:
    """PNG bytes of some images of a recipe, by position."""

    images: Mapping[int, bytes]


@dataclass(frozen=True)
class DaskWorkers:
    """Where batches may be drawn side by side: a scheduler's tls:// address, or a process of this machine for each
    device (flows/diffusion/devices.py names them)."""

    devices: tuple[str, ...]
    address: str = ""


def missing_batches(recipe: SamplingRecipe, present: Iterable[int]) -> list[range]:
    """The positions of each batch that lacks an image. `present`: what is stored."""
    stored, total = set(present), len(recipe.prompts)
    starts = range(0, total, recipe.batch_size)
    batches = [range(start, min(start + recipe.batch_size, total)) for start in starts]
    return [batch for batch in batches if not stored.issuperset(batch)]


def draw_set(
    recipe: SamplingRecipe,
    folder: Path,
    present: Iterable[int],
    write: Callable[[DrawnBatch], None],
    *,
    components: Components | None = None,
    workers: DaskWorkers | None = None,
    fan_out_seconds: float = FAN_OUT_SECONDS,
) -> int:
    """Draw the batches that lack an image and hand what each lacked to `write`; returns how many were drawn.

    The first batch is drawn here and timed. If the others would take longer than `fan_out_seconds` and there are at
    least two `workers`, they are drawn on Dask, else here. `folder` is the base model's; `components` saves loading it,
    and keeps the work here: beside what the caller holds on its device there is no room for another process's model.
    """
    stored = frozenset(present)
    missing = missing_batches(recipe, stored)
    if not missing:
        return 0

    def write_missing(batch: DrawnBatch) -> None:
        write(DrawnBatch({position: image for position, image in batch.images.items() if position not in stored}))

    # Below the return: what is whole already must cost no load of a model, which takes longer than the check.
    parts = components if components is not None else loaded(folder, recipe)
    started = time.monotonic()
    write_missing(draw_batch(recipe, parts, missing[0]))
    expected = (time.monotonic() - started) * (len(missing) - 1)
    if workers is not None and components is None and len(workers.devices) > 1 and expected > fan_out_seconds:
        # Before the workers load theirs: the first of them uses the device that this one is on.
        device = parts.device
        del parts
        return_freed(device)
        for batch in _draw_on_dask(recipe, folder, missing[1:], workers):
            write_missing(batch)
    else:
        for positions in missing[1:]:
            write_missing(draw_batch(recipe, parts, positions))
    return len(missing)


def draw_batch(recipe: SamplingRecipe, components: Components, positions: range) -> DrawnBatch:
    """One whole batch of the recipe."""
    # An image never depends on its neighbours, but one that is alone is rounded otherwise: it is drawn twice.
    drawn = list(positions) * 2 if len(positions) == 1 else positions
    images = draw_images(
        family_named(recipe.family),
        components,
        [recipe.prompts[position] for position in drawn],
        [recipe.seeds[position] for position in drawn],
        recipe.sampler,
        resolution=recipe.resolution,
    )
    return DrawnBatch({position: png(image) for position, image in zip(positions, images, strict=False)})


def loaded(folder: Path, recipe: SamplingRecipe) -> Components:
    """The recipe's base model on this process's device, with the recipe's number of threads."""
    device = prepare_torch(recipe.threads)
    return family_named(recipe.family).load(folder, dtype=recipe.dtype).to(device)


def png(image: Image.Image) -> bytes:
    """An image as PNG bytes without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_on_dask(
    recipe: SamplingRecipe, folder: Path, batches: list[range], workers: DaskWorkers
) -> Iterator[DrawnBatch]:
    """Batches as they are finished. A worker that dies has its batch drawn again elsewhere, at most twice."""
    with drawing_client(workers.devices, workers.address) as client:
        yield from _drawn(client, recipe, folder, batches)


def _drawn(client: Client, recipe: SamplingRecipe, folder: Path, batches: list[range]) -> Iterator[DrawnBatch]:
    # pure=False: no two batches are equal, and Dask would hash the whole recipe into the key of each. A worker that is
    # killed for its memory takes its batch with it; drawing is repeatable, so another one just draws it.
    futures = [client.submit(draw_on_worker, recipe, folder, batch, pure=False, retries=2) for batch in batches]
    for future in as_completed(futures):
        yield future.result()


def draw_on_worker(recipe: SamplingRecipe, folder: Path, positions: range) -> DrawnBatch:
    """One batch in a Dask worker, which loads the model once."""
    with progress_reported():
        return draw_batch(recipe, _loaded_once(folder, recipe.family, recipe.threads, recipe.dtype), positions)


# One: a worker that goes on to another base keeps no earlier model in its memory.
@lru_cache(maxsize=1)
def _loaded_once(folder: Path, family: str, threads: int, dtype: str) -> Components:
    device = prepare_torch(threads)
    return family_named(family).load(folder, dtype=dtype).to(device)
