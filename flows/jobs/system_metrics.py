"""What the machine of a job is busy with, by MLflow's own monitors, so that its page of system metrics shows it."""

from __future__ import annotations

import logging
import time
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

PREFIX = "system/"
"""By it MLflow's page tells them from the metrics of a model."""
EVERY_SECONDS = 10.0
"""As often as MLflow's own thread samples, which would end with the first error of its server."""

log = logging.getLogger("darkroom.tracking")


class SystemMetrics:
    """Samples of processor, memory, disk, network and, where there are some, GPUs."""

    def __init__(self) -> None:
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        # Without a GPU, or without its driver's library.
        except (ImportError, RuntimeError) as error:
            log.debug("no metrics of GPUs: %s", error)
        self._next = time.monotonic() + EVERY_SECONDS

    def due(self) -> bool:
        """Whether the last sample is old enough for another."""
        return time.monotonic() >= self._next

    def sample(self) -> dict[str, float]:
        """The present values, by MLflow's names."""
        self._next = time.monotonic() + EVERY_SECONDS
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found
