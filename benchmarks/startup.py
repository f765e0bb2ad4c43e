"""How long `darkroom up` takes until everything is healthy, and what each part costs: cold, then warm.

    python -m benchmarks.startup

Cold starts on an empty data folder (migrations, deploy); warm starts on the one that the cold start left. Seconds are
from the start of the command to the moment a part is healthy. CPU seconds are those the part has used by the time all
are healthy. Memory is the proportional set size (PSS), so the sum counts shared pages once; the figure leaves out the
training pool's flows, where torch is. They are measured when their modules have been imported.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.local.reports.report import FLOWS_OF, platform_report
from storage.settings import MIB
from tests.deployments.platform import Platform

TORCH = FLOWS_OF + "training"
IMPORTS_SECONDS = 40.0
WARM_GOAL_SECONDS = 15.0
MEMORY_GOAL = 1000 * MIB


@dataclass(frozen=True, slots=True)
class PartCost:
    """One part of one start. `seconds` from the start of the command until the part was healthy; memory in bytes."""

    name: str
    seconds: float
    cpu_seconds: float
    memory: int


def measure(platform: Platform) -> tuple[float, list[PartCost]]:
    """Start it, wait until it is healthy, measure, stop it. Returns the seconds until all was healthy, and each
    part."""
    began = time.time()
    platform.start()
    platform.wait_healthy()
    record = platform.record()
    if record is None:
        raise RuntimeError("The platform ended while it was measured; see its log.")
    total = max(entry.since for entry in record.parts.values()) - began
    cpu = {name: _cpu_seconds(entry.process.pid) if entry.process else 0.0 for name, entry in record.parts.items()} | {
        "darkroom up": _cpu_seconds(record.supervisor.pid)
    }
    time.sleep(IMPORTS_SECONDS)
    reports = platform_report(platform.settings)
    since = {name: entry.since - began for name, entry in record.parts.items()}
    platform.stop()
    costs = [PartCost(part.name, since.get(part.name, 0.0), cpu.get(part.name, 0.0), part.memory) for part in reports]
    return total, costs


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure one cold and one warm start and print both."""
    platform = Platform(Path(tempfile.mkdtemp(prefix="dr-")))
    try:
        cold, cold_costs = measure(platform)
        warm, warm_costs = measure(platform)
    finally:
        platform.kill_everything()
        shutil.rmtree(platform.folder, ignore_errors=True)
    for title, total, costs in (("cold", cold, cold_costs), ("warm", warm, warm_costs)):
        print(f"{title}: everything healthy after {total:.1f} s")
        print(f"  {'part':<16} {'healthy after':>14} {'CPU':>8} {'PSS':>9}")
        for cost in costs:
            print(f"  {cost.name:<16} {cost.seconds:>12.1f} s {cost.cpu_seconds:>6.1f} s {cost.memory / MIB:>6.0f} MB")
        print(f"  {'all':<16} {total:>12.1f} s {'':>8} {sum(cost.memory for cost in costs) / MIB:>6.0f} MB")
    memory = sum(cost.memory for cost in warm_costs if cost.name != TORCH)
    load = psutil.getloadavg()[0]
    print(f"cores {psutil.cpu_count()}, load of the last minute {load:.1f}")
    print(f"figure startup-warm-seconds {warm:.1f} {WARM_GOAL_SECONDS:.0f} {warm / WARM_GOAL_SECONDS:.2f} goal <=1")
    print(f"figure startup-memory-mb {memory / MIB:.0f} {MEMORY_GOAL / MIB:.0f} {memory / MEMORY_GOAL:.2f} goal <=1")


if __name__ == "__main__":
    main()
