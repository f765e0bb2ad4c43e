"""What a tracker beside MLflow offers: a place where a training shows its metrics and samples while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from storage.settings import Settings


@dataclass(frozen=True)
class TrackedJob:
    """A training job as trackers show it. `parameters` is its recipe, `tags` what it is found by."""

    id: UUID
    name: str
    parameters: Mapping[str, object]
    tags: Mapping[str, str]


class Tracker(Protocol):
    """One job's record in a tracker. Whatever its methods raise ends the record, never the training."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep metrics of one step. Steps may come again and out of order."""
        ...

    def image(self, key: str, step: int, png: bytes) -> None:
        """Keep a picture of one step; pictures of one key belong together."""
        ...

    def flush(self) -> None:
        """Have all so far where it survives the end of this process."""
        ...

    def end(self, status: str) -> None:
        """End the record: as FINISHED, FAILED or KILLED, or as RUNNING where another attempt goes on with it."""
        ...


class TrackerKind(Protocol):
    """A tracker, by its name in `storage/records/jobs/choices.py`."""

    def begin(self, settings: Settings, job: TrackedJob, step: int) -> Tracker:
        """Begin a job's record, or go on with it behind `step`, the step that the attempt starts from."""
        ...
