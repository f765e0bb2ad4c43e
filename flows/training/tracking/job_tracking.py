"""What a training job shows while it runs: to MLflow always, and to the trackers that the installation names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlflow.entities import DatasetInput

from flows.jobs.metrics_document import Point
from flows.jobs.tracking import EXPERIMENT
from flows.jobs.tracking_run import TrackingRun
from flows.training.tracking.background import END_SECONDS, BackgroundTracker
from flows.training.tracking.lookup import tracker_named
from flows.training.tracking.protocol import TrackedJob
from storage.settings import Settings

RUNNING = "RUNNING"
STOP_SECONDS = 10.0


class JobTracking:
    """The job's run in MLflow, whose methods say more, and beside it what other trackers take of the same.

    The others begin with `resume`, when it is known at which step the attempt starts. None of them raises here. Raises
    JobCannotSucceed when the library of one is missing.
    """

    def __init__(self, settings: Settings, job: TrackedJob) -> None:
        # Before the thread of the run starts: what is missing ends the job at once.
        self._kinds = {name: tracker_named(name) for name in settings.tracking.names}
        self._settings, self._job = settings, job
        self._others: list[BackgroundTracker] = []
        self._run = TrackingRun(settings, EXPERIMENT, job.id, job.tags)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None while MLflow has not responded yet."""
        return self._run.run_id

    def open(self, wait_seconds: float = 10.0) -> str | None:
        """Find or make the run in MLflow; its id, or None when MLflow is unavailable."""
        return self._run.open(wait_seconds)

    def resume(self, points: Iterable[Point], *, up_to_step: int, kept: bool = True) -> None:
        """Take over what earlier attempts measured, and begin with the other trackers behind that step."""
        self._run.resume(points, up_to_step=up_to_step, kept=kept)
        for name, kind in self._kinds.items():
            begin = lambda kind=kind: kind.begin(self._settings, self._job, up_to_step)  # noqa: E731
            self._others.append(BackgroundTracker(name, begin))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep metrics of one step."""
        self._run.log(step, values)
        for other in self._others:
            other.call(lambda tracker: tracker.log(step, values))

    def image(self, key: str, step: int, png: bytes) -> None:
        """Keep a picture of one step."""
        self._run.image(key, step, png)
        for other in self._others:
            other.call(lambda tracker: tracker.image(key, step, png))

    def params(self, values: Mapping[str, object]) -> None:
        """Keep the parameters in MLflow; the other trackers begin with them."""
        self._run.params(values)

    def tags(self, values: Mapping[str, str]) -> None:
        """Keep tags in MLflow."""
        self._run.tags(values)

    def file(self, path: str, content: bytes) -> None:
        """Keep an artifact in MLflow."""
        self._run.file(path, content)

    def inputs(self, *datasets: DatasetInput) -> None:
        """Keep what the job learns from in MLflow."""
        self._run.inputs(*datasets)

    def has(self, name: str, step: int) -> bool:
        """Whether a metric of this name was kept for a step."""
        return self._run.has(name, step)

    def document(self) -> bytes:
        """Every point so far, one JSON object a line."""
        return self._run.document()

    def next_part(self) -> bytes:
        """The points since the part before; the other trackers keep theirs now, too."""
        for other in self._others:
            other.call(lambda tracker: tracker.flush())
        return self._run.next_part()

    def flush(self, wait_seconds: float = 5.0) -> bool:
        """Send what waits to MLflow; returns whether it has it all."""
        return self._run.flush(wait_seconds)

    def end(self, status: str) -> bool:
        """End everywhere as FINISHED, FAILED or KILLED; returns whether MLflow took it."""
        self._end_others(status)
        return self._run.end(status)

    def close(self) -> None:
        """Stop; what was not ended goes on with the next attempt."""
        self._end_others(RUNNING)
        self._run.close()

    def _end_others(self, status: str) -> None:
        others, self._others = self._others, []
        for other in others:
            # A process that is asked to stop has seconds for it.
            other.end(status, STOP_SECONDS if status == RUNNING else END_SECONDS)
