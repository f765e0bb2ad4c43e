"""What each part of a running platform is doing and what it costs, seen from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from deployments.local.leftovers import processes_of
from deployments.local.platform import parts_of
from deployments.local.state import holder, read_record
from storage.settings import Settings

FLOWS_OF = "flows of "


@dataclass(frozen=True, slots=True)
class PartReport:
    """One line of `darkroom status`. `memory` is the proportional set size of all its processes in bytes."""

    name: str
    state: str
    pid: int | None
    uptime_seconds: float | None
    memory: int
    restarts: int
    url: str
    healthy: bool


def platform_report(settings: Settings) -> list[PartReport]:
    """Each part, asked for its health now; empty when `darkroom up` does not run on this data folder."""
    folder = settings.data_folder
    record = read_record(folder)
    if record is None or holder(folder) is None:
        return []
    known = {part.name: part for part in parts_of(settings)}
    memory = memory_by_part(folder)
    reports = [
        PartReport(
            name="darkroom up",
            state="running",
            pid=record.supervisor.pid,
            uptime_seconds=time.time() - record.supervisor.created,
            memory=proportional_memory(psutil.Process(record.supervisor.pid)),
            restarts=0,
            url=str(folder),
            healthy=True,
        )
    ]
    for name, entry in record.parts.items():
        process = entry.process.process() if entry.process else None
        part = known.get(name)
        responds = entry.state == "done" or (process is not None and part is not None and part.healthy(process.pid))
        state = entry.state.value if responds or entry.state != "healthy" else "does not respond"
        reports.append(
            PartReport(
                name=name,
                state=state,
                pid=process.pid if process else None,
                uptime_seconds=time.time() - process.create_time() if process else None,
                memory=memory.pop(name, 0),
                restarts=entry.restarts,
                url=part.url if part else "",
                healthy=responds and entry.state in ("healthy", "done"),
            )
        )
    flows = {name: size for name, size in sorted(memory.items()) if name.startswith(FLOWS_OF)}
    return reports + [
        PartReport(name, "running", None, None, size, 0, "", healthy=True) for name, size in flows.items()
    ]


def memory_by_part(data_folder: Path) -> dict[str, int]:
    """Proportional set size in bytes by part. What a worker has started (flow runs, and the process with the imports
    done that they are forked from) is counted apart, as the flows of its pool."""
    record = read_record(data_folder)
    main = {entry.process.pid: name for name, entry in (record.parts if record else {}).items() if entry.process}
    found = {process.pid: (part, process) for part, process in processes_of(data_folder)}
    for pid, name in main.items():
        for process in _with_children(pid):
            found.setdefault(process.pid, (name, process))
    total: dict[str, int] = {}
    for pid, (part, process) in found.items():
        name = main.get(pid) or (FLOWS_OF + part.removeprefix("worker-") if part.startswith("worker-") else part)
        total[name] = total.get(name, 0) + proportional_memory(process)
    return total


def _with_children(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def proportional_memory(process: psutil.Process) -> int:
    """Memory of a process with its share of what it shares (PSS), or its resident size where that is not known."""
    try:
        full = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0
    except psutil.AccessDenied:
        return process.memory_info().rss
    # Flow runs are forked: by resident size what they share would be counted once for each.
    return getattr(full, "pss", full.rss)
