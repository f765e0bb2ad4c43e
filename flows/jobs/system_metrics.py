"""What the machine of a job is busy with, by MLflow's own monitors, so that its page of system metrics shows it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

PREFIX = "system/"
"""By it MLflow's page tells them from the metrics of a model."""
EVERY_SECONDS = 10.0
"""As often as MLflow's own thread samples, which would end with the first error of its server; for the first hour."""
LATER_SECONDS = 60.0
"""After that: a day of samples is 1,700 points of each metric, not 8,600."""

log = logging.getLogger("darkroom.tracking")


class SystemMetrics:
    """Samples of processor, memory, disk, network and, where there are some, GPUs."""

    def __init__(self) -> None:
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        # No GPU, no library of its driver, a GPU that is lost or not for us: NVML's errors share no class with the
        # others, and no metric of a machine may cost a job.
        with suppress(Exception):
            self._monitors.append(GPUMonitor())
        self._begun = time.monotonic()
        self._next = self._begun + EVERY_SECONDS

    def due(self) -> bool:
        """Whether the last sample is old enough for another."""
        return time.monotonic() >= self._next

    def sample(self) -> dict[str, float]:
        """The present values, by MLflow's names."""
        now = time.monotonic()
        self._next = now + (EVERY_SECONDS if now - self._begun < 3600 else LATER_SECONDS)
        found: dict[str, float] = {}
        for monitor in list(self._monitors):
            try:
                monitor.collect_metrics()
                found |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            # Whatever it raises: the rest of the tracking must go on.
            except Exception as error:  # noqa: BLE001
                log.warning("%s is left out from now on: %s: %s", type(monitor).__name__, type(error).__name__, error)
                self._monitors.remove(monitor)
        return found
