"""What a fine-tune would be and need, before it is submitted: the whole request, memory, disk and time."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from storage.blobs.model_sizes import sizes_in_store
from storage.blobs.store import BlobStore
from storage.errors import BlobMissing, WeightsRefused
from storage.postgres.connection import Script
from storage.postgres.jobs import base_models, data_sets
from storage.postgres.jobs.paces import paces, seconds_per_step
from storage.postgres.jobs.submissions import of_field
from storage.records.jobs.base_models import BaseModel, BaseModelFile
from storage.records.jobs.costs.advice import MemorySaving, cards_that_fit, savings
from storage.records.jobs.costs.disk import DiskEstimate, estimate_disk
from storage.records.jobs.costs.memory import MARGIN, MemoryEstimate, estimate_memory
from storage.records.jobs.costs.paces import DevicePace
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.resolved_requests import complete_request, resolved_recipe
from storage.records.jobs.training import TrainingOptions, TrainingRecipe
from storage.records.jobs.training_basics import DataSetId
from storage.stores import AsyncStores

UNKNOWN = "no job with these settings has succeeded on this base model yet: nothing is known of the time"
NO_EPOCHS = "keepEveryEpochs counts photos, and there are none yet: the checkpoints that stay are not in the estimate"


class TrainingPlan(TrainingOptions, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A training request whose photos may be missing."""

    data_set_id: DataSetId | None = None


class MemoryView(MemoryEstimate, frozen=True, kw_only=True, rename="camel"):
    """Bytes on the device at the peak of the steps, by what they are for."""

    peak_bytes: Annotated[int, Meta(description="All together at the worst moment.")]
    margin: Annotated[float, Meta(description="The part by which a measured peak may lie beside it.", examples=[0.15])]
    fits_cards: Annotated[list[str], Meta(description="Cards of presets that have room for it.", examples=[["24 GB"]])]
    savings: Annotated[list[MemorySaving], Meta(description="What would need less, the cheapest first.")]


class DiskView(DiskEstimate, frozen=True, kw_only=True, rename="camel"):
    """Upper bounds in bytes.

    checkpoints: all at once, the one being written included; keptCheckpoints: those present during export; export: what
    the result adds to the blob store; exportCopies: its copies in the work folder; classImages: may be there already;
    images: samples and evaluation; records: metrics.
    """

    peak_bytes: Annotated[int, Meta(description="All that is there at once.")]


class TimeView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pace of jobs with the same settings on a device."""

    device: str
    jobs: int
    seconds_per_step: Annotated[float, Meta(description="From a step to the next, checkpoints and samples included.")]
    other_seconds: Annotated[
        float, Meta(description="Before and after the steps: class images, loading, evaluation, export.")
    ]
    seconds: Annotated[float, Meta(description="For this request: its steps, and all before and after them.")]


class TrainingEstimate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a request means on its base model, and what it needs. Nothing was submitted."""

    request: Annotated[dict[str, Any], Meta(description="The request with nothing left out: the same job, if sent.")]
    family: str
    resolution: Annotated[int, Meta(description="Pixels of one side, the base model's.")]
    memory: Annotated[MemoryView | None, Meta(description="null: the base model's weights cannot be read.")]
    disk: DiskView | None
    times: Annotated[list[TimeView], Meta(description="By device; empty: nothing is known yet.")]
    notes: list[str]


async def estimate(stores: AsyncStores, request: TrainingPlan, account_id: UUID) -> TrainingEstimate:
    """The estimate for a request of that account. Raises InvalidRequest."""

    def script() -> Script[tuple[BaseModel, list[BaseModelFile], TrainingRecipe, list[DevicePace], float | None]]:
        base = yield from of_field("baseModel", iter(base_models.by_name(request.base_model)))
        photos = yield from _photos(request.data_set_id, account_id)
        recipe = resolved_recipe(request, data_set_hash="", base=base.resolving_facts(), seed=0, photos=photos)
        files = yield from base_models.files(base.id)
        found = yield from paces(base.name, recipe)
        return base, files, recipe, found, (yield from seconds_per_step(base.name))

    base, files, recipe, found, any_pace = await stores.database.run(script)
    notes: list[str] = []
    if request.keep_every_epochs and not recipe.keep_every:
        notes.append(NO_EPOCHS)
    memory = disk = None
    try:
        # The arithmetic too, which looks at every name of the model: the event loop serves others meanwhile.
        memory, disk = await stores.pools.blob_reads.run(partial(_needs, stores.blobs, files, recipe))
    except (WeightsRefused, BlobMissing) as error:
        notes.append(f"memory and disk are unknown: {error}")
    if not found:
        other = "" if any_pace is None else f"; other jobs on it took {any_pace:.2g} s a step"
        notes.append(UNKNOWN + other)
    return TrainingEstimate(
        request=complete_request(request, recipe),
        family=base.facts.family,
        resolution=base.facts.resolution,
        memory=memory,
        disk=disk,
        times=[_time(pace, recipe) for pace in found],
        notes=notes,
    )


def _photos(data_set_id: UUID | None, account_id: UUID) -> Script[list[DataSetImage]]:
    if data_set_id is None:
        return []
    yield from of_field("dataSetId", iter(data_sets.get(data_set_id, account_id)))
    return (yield from data_sets.images(data_set_id))


def _needs(blobs: BlobStore, files: list[BaseModelFile], recipe: TrainingRecipe) -> tuple[MemoryView, DiskView]:
    sizes = sizes_in_store(blobs, files)
    memory = estimate_memory(sizes, recipe)
    disk = estimate_disk(sizes, recipe)
    shown = MemoryView(
        **msgspec.structs.asdict(memory),
        peak_bytes=memory.peak,
        margin=MARGIN,
        fits_cards=list(cards_that_fit(memory)),
        savings=list(savings(sizes, recipe, memory)),
    )
    return shown, DiskView(**msgspec.structs.asdict(disk), peak_bytes=disk.peak)


def _time(pace: DevicePace, recipe: TrainingRecipe) -> TimeView:
    return TimeView(
        device=pace.device,
        jobs=pace.jobs,
        seconds_per_step=pace.seconds_per_step,
        other_seconds=pace.other_seconds,
        seconds=round(pace.seconds(recipe), 1),
    )
