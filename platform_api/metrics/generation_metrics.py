"""Metrics of what draws generations, and of what waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from storage.postgres.generation.workflows import LaneQueue
from storage.records.generation.circuits import BackendRow, CircuitState, circuit_of
from storage.records.generation.prices import Priority

_CIRCUITS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


def generation_metrics(
    backends: Sequence[BackendRow], lanes: Sequence[LaneQueue] | None, now: datetime
) -> Iterable[Metric]:
    """Of each backend what the run that draws last found, and workflows by priority; lanes None: unknown."""
    for name, text, value in _OF_BACKENDS:
        family = GaugeMetricFamily(name, text, labels=["backend"])
        for backend in backends:
            family.add_metric([backend.name], value(backend, now))
        yield family
    info = InfoMetricFamily("darkroom_generation_backend", "What each backend is.", labels=["backend"])
    for backend in backends:
        info.add_metric([backend.name], {"version": backend.version})
    yield info
    if lanes is not None:
        yield from _of_lanes(lanes)


def responds(backend: BackendRow) -> bool:
    """Whether a backend responded when it was last asked for something."""
    if backend.responded_at is None:
        return False
    return backend.failed_at is None or backend.responded_at >= backend.failed_at


def _of_lanes(lanes: Sequence[LaneQueue]) -> Iterable[Metric]:
    waiting = GaugeMetricFamily("darkroom_generation_waiting", "Workflows that wait.", labels=["priority"])
    drawing = GaugeMetricFamily("darkroom_generation_drawing", "Workflows that are drawn now.", labels=["priority"])
    of_lane = {one.lane: one for one in lanes}
    for priority in Priority:
        found = of_lane.get(priority.lane)
        # Also where there is none: a series that comes and goes sets off no alert.
        waiting.add_metric([priority.value], found.waiting if found else 0)
        drawing.add_metric([priority.value], found.drawing if found else 0)
    yield from (waiting, drawing)


_OF_BACKENDS: tuple[tuple[str, str, Callable[[BackendRow, datetime], float]], ...] = (
    (
        "darkroom_generation_backend_up",
        "1 when a backend responded the last time that it was asked.",
        lambda backend, _now: responds(backend),
    ),
    (
        "darkroom_generation_backend_circuit",
        "0: closed; 1: half open, the next drawing tries it; 2: open, it is left alone.",
        lambda backend, now: _CIRCUITS[circuit_of(backend.failures, backend.failed_at, now)],
    ),
    (
        "darkroom_generation_backend_drawing",
        "Steps that a backend draws now.",
        lambda backend, _now: backend.drawing,
    ),
)
