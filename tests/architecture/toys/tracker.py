"""The tracker `toy`: a line in a file for each call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.training.tracking.protocol import TrackedJob, Tracker, TrackerKind
from storage.settings import Settings


class ToyTracker:
    """One file a platform."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The step and the names."""
        self._write(f"{step} {' '.join(values)}")

    def image(self, key: str, step: int, png: bytes) -> None:
        """The step and the key."""
        self._write(f"{step} {key}")

    def flush(self) -> None:
        """Nothing."""

    def end(self, status: str) -> None:
        """How it ended."""
        self._write(status)

    def _write(self, line: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{line}\n")


class ToyTrackerKind:
    """The tracker `toy`."""

    def begin(self, settings: Settings, job: TrackedJob, step: int) -> Tracker:
        """See protocol.py."""
        return ToyTracker(settings.data_folder / "toy-tracker.txt")


TRACKER: TrackerKind = ToyTrackerKind()
