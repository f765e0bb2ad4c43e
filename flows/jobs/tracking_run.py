"""A job's run in MLflow, which every training job has.

Metrics are kept in order, sent by a thread every two seconds or 500 points, and stored as files of the job, so that
training never waits for MLflow and a run that MLflow lost can be filled again. A resumed job repeats steps with equal
values; those that MLflow already has are not sent twice.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from mlflow.entities import DatasetInput, Metric, Param, RunTag
from PIL import Image

from flows.jobs.metrics_document import Point, points_of, write_document
from flows.jobs.refused_values import RefusedTries, is_of_the_value, send_what_is_taken
from flows.jobs.system_metrics import PREFIX, SystemMetrics
from flows.jobs.tracking import MLFLOW_UNAVAILABLE, find_or_create_run, tracking_client
from flows.jobs.tracking_facts import shortened
from storage.settings import Settings

log = logging.getLogger("darkroom.tracking")

SEND_SECONDS = 2.0
SEND_POINTS = 500
MAX_METRICS, MAX_PARAMS = 1000, 100
"""What MLflow takes in a batch."""
_NOT_SENT = (*MLFLOW_UNAVAILABLE, OSError)
"""OSError: pictures and files pass through this machine's temporary folder, which may be full."""


class TrackingRun:
    """A job's record in MLflow. No method begins a call to MLflow later than it says, and none raises when it is
    unavailable.

    The last call may end later, by what PATIENCE allows: MLflow's client has a time-out for the process only, which the
    sender's calls share.
    """

    def __init__(self, settings: Settings, experiment: str, job_id: UUID, tags: Mapping[str, str]) -> None:
        self._client = tracking_client(settings)
        self._experiment, self._job_id, self._tags = experiment, job_id, dict(tags)
        self._run_id: str | None = None
        self._points: list[Point] = []
        self._unsent: list[Point] = []
        self._kept = 0
        self._known_steps: dict[str, int] = {}
        self._params: dict[str, str] = {}
        self._late_tags: dict[str, str] = {}
        self._calls: list[Callable[[str], None]] = []
        self._refused_run, self._refused_call = RefusedTries(), RefusedTries()
        self._refused_values = RefusedTries(is_of_the_value)
        self._system = SystemMetrics()
        self._system_step = 0
        # Two locks: the first guards the lists and is held for a moment, so that a training step never waits; the
        # second is held while MLflow is asked, so that the thread and a flush do not send the same points.
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake, self._closed = threading.Event(), threading.Event()
        send = copy_context().run  # what it logs belongs to what this does
        self._sender = threading.Thread(
            target=send, args=(self._send_for_ever,), name=f"tracking-{job_id}", daemon=True
        )
        self._sender.start()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None while MLflow has not responded yet."""
        return self._run_id

    def open(self, wait_seconds: float = 10.0) -> str | None:
        """Find or make the run; returns its id, or None when MLflow is unavailable, in which case the sender keeps
        trying."""
        self.flush(wait_seconds)
        return self._run_id

    def resume(self, points: Iterable[Point], *, up_to_step: int, kept: bool = True) -> None:
        """Take over the points of an earlier attempt, truncated to the checkpoint that this one starts from.

        kept: whether the job's own files have them; not if they are of the job that it retries."""
        with self._lock:
            # Steps behind the checkpoint are run again, and would stand in the chart twice: MLflow appends, it replaces
            # nothing.
            taken = [point for point in points if point.step <= up_to_step]
            self._points = taken + self._points
            # Behind those that may be on their way now.
            self._unsent += taken
            self._kept = len(taken) if kept else 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep metrics of one step; they are sent soon."""
        with self._lock:
            points = points_of(step, values)
            self._points += points
            self._unsent += points
            waiting = len(self._unsent)
        # A request costs 15 ms and more, a further point in one 0.2 ms: sending each as it comes could not keep up.
        if waiting >= SEND_POINTS:
            self._wake.set()

    def params(self, values: Mapping[str, object]) -> None:
        """Keep the run's parameters; they are sent soon."""
        with self._lock:
            self._params.update({name: shortened(value) for name, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Keep tags; they are sent soon."""
        with self._lock:
            self._late_tags.update(values)

    def file(self, path: str, content: bytes) -> None:
        """Keep an artifact of the run (`path` inside it); it is sent soon."""
        self._call(lambda run_id: self._send_file(run_id, path, content))

    def image(self, key: str, step: int, png: bytes) -> None:
        """Keep a picture of one step; it is sent soon. MLflow shows those of one key on a slider of steps."""

        def send(run_id: str) -> None:
            with Image.open(io.BytesIO(png)) as picture:
                self._client.log_image(run_id, picture, key=key, step=step, synchronous=True)

        self._call(send)

    def inputs(self, *datasets: DatasetInput) -> None:
        """Keep what the run learns from; it is sent soon."""
        self._call(lambda run_id: self._client.log_inputs(run_id, list(datasets)))

    def _call(self, call: Callable[[str], None]) -> None:
        with self._lock:
            self._calls.append(call)

    def document(self) -> bytes:
        """Every point so far, one JSON object a line."""
        with self._lock:
            return write_document(self._points)

    def next_part(self) -> bytes:
        """The points since the part before, in the same form: what the job keeps of them with a checkpoint."""
        with self._lock:
            part, self._kept = self._points[self._kept :], len(self._points)
        return write_document(part)

    def has(self, name: str, step: int) -> bool:
        """Whether a metric of this name was kept for a step."""
        with self._lock:
            return any((point.name, point.step) == (name, step) for point in reversed(self._points))

    def flush(self, wait_seconds: float = 5.0) -> bool:
        """Send what waits; returns whether MLflow has it all."""
        deadline = time.monotonic() + wait_seconds
        while True:
            if self._send():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.5)

    def end(self, status: str) -> bool:
        """End the run as FINISHED, FAILED or KILLED; returns whether MLflow took it. Else reconcile repairs it."""
        complete = self.flush()
        self.close()
        if self._run_id is None:
            return False
        try:
            self._client.set_terminated(self._run_id, status)
        except MLFLOW_UNAVAILABLE as error:
            log.warning("tracking run of job %s stays open: %s", self._job_id, type(error).__name__)
            return False
        return complete

    def close(self) -> None:
        """Stop sending; the run stays as it is, for the next attempt."""
        self._closed.set()
        self._wake.set()
        self._sender.join(timeout=15)

    def _send_for_ever(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(SEND_SECONDS)
            self._wake.clear()
            if not self._closed.is_set() and not self._send():
                # A pause that `close` ends, so that a stop does not wait for MLflow to come back.
                self._closed.wait(5.0)

    def _send(self) -> bool:
        with self._sending:
            try:
                self._open_run()
                self._send_points()
                self._send_system_metrics()
                self._send_calls()
            except _NOT_SENT as error:
                log.warning("MLflow is unavailable (%s); metrics of job %s wait", type(error).__name__, self._job_id)
                return False
            return True

    def _open_run(self) -> None:
        if self._run_id is not None:
            return
        try:
            run_id = find_or_create_run(self._client, self._experiment, self._job_id, self._tags)
        except MLFLOW_UNAVAILABLE as error:
            if self._tags and self._refused_run.are_for_good(error):
                # Perhaps for one of its tags: they follow, each by itself.
                self._refused_run.clear()
                with self._lock:
                    self._late_tags, self._tags = {**self._tags, **self._late_tags}, {}
            raise
        for name in self._client.get_run(run_id).data.metrics:
            # What an earlier attempt sent although its response was lost. Steps only grow, so the highest one says it
            # all.
            history = self._client.get_metric_history(run_id, name)
            self._known_steps[name] = max(point.step for point in history)
            if name.startswith(PREFIX):
                self._system_step = max(self._system_step, self._known_steps[name] + 1)
        self._run_id = run_id

    def _send_system_metrics(self) -> None:
        if not self._system.due():
            return
        # Not among the job's points: they say nothing of the model, and a run that is filled again lacks them.
        points = points_of(self._system_step, self._system.sample())
        self._system_step += 1
        metrics = [Metric(one.name, one.value, one.at, one.step) for one in points]
        try:
            send_what_is_taken(self._client, self._run_id or "", self._job_id, metrics)
        except MLFLOW_UNAVAILABLE as error:
            # The next sample says as much: this one holds up no picture or file.
            code = getattr(error, "error_code", type(error).__name__)
            log.warning("a sample of the machine's load is left out of job %s's tracking run: %s", self._job_id, code)

    def _send_points(self) -> None:
        run_id = self._run_id or ""
        with self._lock:
            batch = self._unsent[:MAX_METRICS]
            taken = list(self._params)[:MAX_PARAMS]
            params = {name: self._params.pop(name) for name in taken}
            tags, self._late_tags = self._late_tags, {}
        fresh = [point for point in batch if point.step > self._known_steps.get(point.name, -1)]
        metrics = [Metric(point.name, point.value, point.at, point.step) for point in fresh]
        texts = [Param(name, value) for name, value in params.items()]
        labels = [RunTag(name, value) for name, value in tags.items()]
        try:
            try:
                self._client.log_batch(run_id, metrics=metrics, params=texts, tags=labels)
            except MLFLOW_UNAVAILABLE as error:
                if not self._refused_values.are_for_good(error):
                    raise
                send_what_is_taken(self._client, run_id, self._job_id, [*metrics, *texts, *labels])
        except MLFLOW_UNAVAILABLE:
            with self._lock:
                # What came meanwhile is newer and wins.
                self._params = {**params, **self._params}
                self._late_tags = {**tags, **self._late_tags}
            raise
        self._refused_values.clear()
        with self._lock:
            del self._unsent[: len(batch)]
            more = bool(self._unsent or self._params)
        if more:
            self._send_points()

    def _send_calls(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    return
                call = self._calls[0]
            try:
                call(self._run_id or "")
            except _NOT_SENT as error:
                if not self._refused_call.are_for_good(error):
                    raise
                what = (str(error).splitlines() or [""])[0][:300]
                log.warning("MLflow does not take a picture, file or input of job %s: %s", self._job_id, what)
            with self._lock:
                # After it was sent: a failure leaves it in its place.
                self._calls.pop(0)
            self._refused_call.clear()

    def _send_file(self, run_id: str, path: str, content: bytes) -> None:
        with TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(content)
            parent = str(Path(path).parent)
            self._client.log_artifact(run_id, str(local), None if parent == "." else parent)
