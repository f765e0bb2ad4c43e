"""The metrics files of a job, read: one whole file, or parts of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from flows.jobs.metrics_document import Point, merged
from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing
from storage.records.jobs.jobs import JobFile, JobFileRole

log = logging.getLogger("darkroom.tracking")

METRICS_FILE = "metrics.jsonl"
LAST_PART = "metrics-last.jsonl"
"""What a training that failed had measured behind its last checkpoint."""


def part_name(step: int) -> str:
    """The name of the part that ends with a step."""
    return f"metrics-{step:06d}.jsonl"


def read_metrics(blobs: BlobStore, files: Iterable[JobFile]) -> list[Point]:
    """Every point of a job's metrics, by step. `files` are the job's, oldest first.

    A file whose bytes are lost or damaged is left out with a warning: its points are gone, and a training that could go
    on must not fail for them. Raises StoreUnavailable.
    """
    return merged(_contents(blobs, [file for file in files if file.role is JobFileRole.METRICS]))


def _contents(blobs: BlobStore, files: Iterable[JobFile]) -> Iterator[bytes]:
    for file in files:
        try:
            yield blobs.read(file.sha256)
        except (BlobMissing, BlobCorrupted) as error:
            log.warning("the metrics in %s of job %s are left out: %s", file.name, file.job_id, error)
