"""What a running `darkroom up` writes down for others: its lock, and which process each part is.

DATA/run/lock is locked by the kernel for as long as `up` lives, so a dead one never blocks the next. A process is
named by its pid and its time of creation together, because pids are used again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO

import msgspec
import psutil

from deployments.local.errors import AlreadyRunning


class PartState(StrEnum):
    """Where a part is between not started and stopped."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    BACKING_OFF = "backing off"
    DONE = "done"
    STOPPED = "stopped"


class ProcessName(msgspec.Struct, frozen=True):
    """One process, and no later one with the same pid. `created` is in seconds since the epoch."""

    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The process, if it still is."""
        try:
            process = psutil.Process(self.pid)
            # Nearly: psutil adds the time of the boot, which moves a little as the machine's clock is corrected.
            alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.created) < 1.0
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


class PartRecord(msgspec.Struct, frozen=True):
    """One part as `up` sees it. `since` is the time of the state, in seconds since the epoch."""

    state: PartState
    since: float
    restarts: int
    process: ProcessName | None


class PlatformRecord(msgspec.Struct, frozen=True):
    """The whole platform as `up` sees it."""

    supervisor: ProcessName
    healthy: bool
    parts: dict[str, PartRecord]


def name_process(pid: int) -> ProcessName:
    """The lasting name of a process that runs now."""
    return ProcessName(pid, psutil.Process(pid).create_time())


def run_folder(data_folder: Path) -> Path:
    """Where the lock and the record are."""
    return data_folder / "run"


def write_record(data_folder: Path, record: PlatformRecord) -> None:
    """Replace the record at once: a reader sees the old one or the new one."""
    file = run_folder(data_folder) / "platform.json"
    beside = file.with_suffix(".new")
    beside.write_bytes(msgspec.json.encode(record))
    beside.replace(file)


def read_record(data_folder: Path) -> PlatformRecord | None:
    """What the last `up` wrote; None when there never was one."""
    file = run_folder(data_folder) / "platform.json"
    return msgspec.json.decode(file.read_bytes(), type=PlatformRecord) if file.exists() else None


def holder(data_folder: Path) -> int | None:
    """The pid of the `up` that holds the data folder now; None when nobody does."""
    file = run_folder(data_folder) / "lock"
    if not file.exists():
        return None
    with file.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read().strip() or "0")
    return None


@contextmanager
def holding(data_folder: Path) -> Generator[None]:
    """Hold the data folder for this process. Raises AlreadyRunning with the pid of the one that holds it."""
    folder = run_folder(data_folder)
    folder.mkdir(parents=True, exist_ok=True)
    # For appending: "w" would empty the file, and with it the holder's pid, before the lock is ours.
    with (folder / "lock").open("a+") as lock:
        if not _take(lock):
            lock.seek(0)
            raise AlreadyRunning(
                f"Darkroom already runs on {data_folder}: process {lock.read().strip()}. Stop it with `darkroom down`, "
                "or set DARKROOM_DATA_FOLDER to another folder (and its ports)."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _take(lock: IO[str]) -> bool:
    """Lock the file. Tried for half a second, because `holder` locks it too, for an instant."""
    for pause in (0.1, 0.2, 0.2, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause:
                time.sleep(pause)
        else:
            return True
    return False
