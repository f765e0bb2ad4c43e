"""What each stage of a training makes: names of bytes and figures, never the things themselves.

So a stage can be found done: by a later attempt of its job, by a retry of the job, by Prefect's Retry button.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from flows.jobs.lifecycle import RunningJob
from flows.training.evaluation import Evaluation
from flows.training.photos.pictures import is_whole
from storage.postgres.connection import Script
from storage.postgres.jobs import job_stages
from storage.postgres.upkeep import orphans
from storage.records.catalog.catalog import NewFile, NewImage
from storage.records.jobs.jobs import Stage, StageBlob, StageRow, stage_key

Result = TypeVar("Result", bound=msgspec.Struct)


class PreparedData(msgspec.Struct, frozen=True, kw_only=True):
    """The base model's folder and the photos, by the hashes of their contents."""

    base_model_hash: str
    data_set_hash: str
    photos: int


class ClassImages(msgspec.Struct, frozen=True, kw_only=True):
    """The images that hold the prior: the key of their set, and their bytes in its order. None without a prior."""

    key: str
    images: tuple[str, ...]


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """The trained weights: the checkpoint of the last step. How fast the `steps` of the attempt were that ended it: a
    step by its median, and the pause between two, in seconds."""

    step: int
    checkpoint: str
    steps: int = 0
    step_seconds: float = 0.0
    pause_seconds: float = 0.0


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics, the grid's bytes, and the pictures of the subject that the catalogue shows."""

    evaluation: Evaluation
    grid: str
    samples: tuple[NewImage, ...]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The files to publish; their bytes are stored."""

    files: tuple[NewFile, ...]


class PublishedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The version in the catalogue."""

    version_id: int


class KeptStages:
    """What is kept of the stages of one running job."""

    def __init__(self, job: RunningJob) -> None:
        self._job = job

    def rows(self) -> list[StageRow]:
        """Those that have ended, in their order."""
        return self._job.run(lambda: job_stages.of_job(self._job.id))

    def find(self, stage: Stage, inputs: Mapping[str, object], kind: type[Result]) -> tuple[StageRow, Result] | None:
        """What a stage has made of these inputs, if it has, and the blob store still holds all of it: images whole,
        larger files by their names."""
        row = next((row for row in self.rows() if row.stage is stage), None)
        if row is None or row.key != stage_key(stage, inputs):
            return None
        result = msgspec.convert(row.result, kind)
        job, unnamed = self._job, unnamed_blobs(result)
        if not self._stored(result):
            return None
        if unnamed:
            job.run(lambda: _named(job, stage, unnamed))
            # A sweep may have been deleting them until they were named.
            if not self._stored(result):
                return None
        return row, result

    def _stored(self, result: msgspec.Struct) -> bool:
        """Whether the blob store holds all the bytes of a result, undamaged if they are images. Those are read as a
        whole anyway, and drawn again where they have to be; larger files are checked when they are used."""
        blobs = self._job.stores.blobs
        holds = partial(is_whole, blobs) if isinstance(result, ClassImages | Evaluated) else blobs.exists
        # Each is looked at: a damaged one has to be gone before it is made again.
        held = [self._job.with_retries(partial(holds, sha256)) for sha256 in bytes_of(result)]
        return all(held)

    def keep(
        self, stage: Stage, inputs: Mapping[str, object], result: msgspec.Struct, *, seconds: float, peak_bytes: int
    ) -> None:
        """Keep what a stage has made. Raises JobLost, StoreUnavailable."""
        job, key = self._job, stage_key(stage, inputs)
        document: dict[str, Any] = msgspec.to_builtins(result)
        blobs = unnamed_blobs(result)
        job.run(
            lambda: job_stages.put(
                *(job.id, job.attempt, stage, key, document, blobs), seconds=seconds, peak_bytes=peak_bytes
            )
        )


def _named(job: RunningJob, stage: Stage, blobs: Sequence[StageBlob]) -> Script[None]:
    # In one order for all, so that two jobs with the same bytes never wait for each other.
    for sha256 in sorted(blob.sha256 for blob in blobs):
        yield from orphans.renew(sha256)
    yield from job_stages.name_blobs(job.id, job.attempt, stage, blobs)


def bytes_of(result: msgspec.Struct) -> Sequence[str]:
    """The bytes that a result needs to be of use."""
    match result:
        case ClassImages():
            return result.images
        case Fitted():
            return (result.checkpoint,)
        case Evaluated():
            return (result.grid, *(image.sha256 for image in result.samples))
        case Exported():
            return tuple(file.sha256 for file in result.files)
        case _:
            return ()


def unnamed_blobs(result: msgspec.Struct) -> list[StageBlob]:
    """Those that no row but the stage's own names until the job publishes: class images, checkpoints and the grid have
    theirs."""
    match result:
        case Evaluated():
            found = {image.sha256: image.size for image in result.samples}
        case Exported():
            found = {file.sha256: file.size for file in result.files}
        case _:
            found = dict[str, int]()
    return [StageBlob(sha256=sha256, size=size) for sha256, size in found.items()]
