"""The metrics files of a job, read: one whole file, or parts of it."""

from __future__ import annotations

from collections.abc import Iterable

from flows.jobs.metrics_document import Point, merged
from storage.blobs.store import BlobStore
from storage.records.jobs.jobs import JobFile, JobFileRole

METRICS_FILE = "metrics.jsonl"
LAST_PART = "metrics-last.jsonl"
"""What a training that failed had measured behind its last checkpoint."""


def part_name(step: int) -> str:
    """The name of the part that ends with a step."""
    return f"metrics-{step:06d}.jsonl"


def read_metrics(blobs: BlobStore, files: Iterable[JobFile]) -> list[Point]:
    """Every point of a job's metrics, by step. `files` are the job's, oldest first.

    Raises BlobMissing, BlobCorrupted, StoreUnavailable.
    """
    return merged(blobs.read(file.sha256) for file in files if file.role is JobFileRole.METRICS)
