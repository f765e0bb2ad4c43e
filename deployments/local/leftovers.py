"""Stops what an earlier `up` left behind when it died: its parts, and the flow processes of its workers.

A flow process whose worker died goes on by design. After a dead `up` it is stopped all the same: its job gets a new
attempt, which goes on from its last checkpoint under the new worker.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import psutil

from deployments.local.environment import DATA_FOLDER_MARK, PART_MARK
from deployments.local.state import read_record

STORES = ("postgres", "valkey")
GRACE_SECONDS = 8.0


def processes_of(data_folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of the platform in `data_folder` with the part it belongs to, found by its environment.

    A flow process carries the part of its worker. Processes whose environment may not be read are other people's.
    """
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
        if environment.get(DATA_FOLDER_MARK) == str(data_folder) and process.pid != os.getpid():
            yield environment.get(PART_MARK, ""), process


def stop_leftovers(data_folder: Path) -> list[str]:
    """Stop every process that an earlier `up` of this folder left; returns a line for each. The caller holds the lock.

    The two databases go last, so that what still writes to them can end its sentence.
    """
    found = {process.pid: (part, process) for part, process in processes_of(data_folder)}
    # The record as well: Valkey writes its title over its environment, and the mark with it.
    record = read_record(data_folder)
    for part, known in (record.parts if record else {}).items():
        process = known.process.process() if known.process else None
        if process is not None:
            found.setdefault(process.pid, (part, process))
    stores = [process for part, process in found.values() if part in STORES]
    others = [process for part, process in found.values() if part not in STORES]
    lines = [f"stopped {part} (process {pid}), left by an earlier `up`" for pid, (part, _) in sorted(found.items())]
    stop_processes(others, signal.SIGTERM, GRACE_SECONDS)
    # SIGINT is Postgres' fast shutdown; SIGTERM would wait for every client to leave.
    stop_processes(stores, signal.SIGINT, GRACE_SECONDS)
    return lines


def stop_strays(data_folder: Path, spared: Collection[int], grace_seconds: float) -> None:
    """Stop every process of the platform whose pid is not in `spared`: the flow processes of its workers."""
    strays = [process for _, process in processes_of(data_folder) if process.pid not in spared]
    stop_processes(strays, signal.SIGTERM, grace_seconds)


def stop_processes(processes: Iterable[psutil.Process], first: signal.Signals, grace_seconds: float) -> None:
    """Send `first` to all, wait, and kill those that are still there."""
    asked = list(processes)
    for process in asked:
        _send(process, first)
    _, alive = psutil.wait_procs(asked, timeout=grace_seconds)
    for process in alive:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace_seconds)


def _send(process: psutil.Process, signum: signal.Signals) -> None:
    try:
        process.send_signal(signum)
    except psutil.NoSuchProcess:
        return  # it has ended by itself, which is what was wanted
