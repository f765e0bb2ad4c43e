"""The memory of the machine that a process runs on, or of its container where that has less."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")
_CGROUP = Path("/sys/fs/cgroup")


def host_bytes() -> int:
    """Bytes of memory that this machine has, or this process's cgroup where that has less."""
    cgroup = _cgroup()
    return int(psutil.virtual_memory().total) if cgroup is None else cgroup[0]


def free_host_bytes() -> int:
    """Bytes that this process may still take of the machine's memory: what is available, or left in its cgroup, or
    below its own limit."""
    available = int(psutil.virtual_memory().available)
    if (cgroup := _cgroup()) is not None:
        available = max(0, min(available, cgroup[0] - cgroup[1]))
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    counted = status_bytes().get("VmData")
    if counted is None or limit in (-1, resource.RLIM_INFINITY):
        return available
    return max(0, min(available, limit - counted))


def empty_data_bytes() -> int:
    """Bytes of this process that RLIMIT_DATA counts though nothing is in them: what its heap has given back to the
    system (malloc_trim(3) leaves the addresses), files that are mapped and were not changed, stacks. 0 without /proc.
    """
    status = status_bytes()
    return max(0, status.get("VmData", 0) - status.get("RssAnon", 0) - status.get("VmSwap", 0))


def status_bytes() -> dict[str, int]:
    """What /proc/self/status (proc(5)) says in kB, in bytes; nothing without /proc."""
    with suppress(OSError):
        lines = [line.split() for line in (_PROCESS / "status").read_text().splitlines()]
        return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[2:] == ["kB"]}
    return {}


def _cgroup() -> tuple[int, int] | None:
    """Limit and use of memory of this process's cgroup, where it has less than the machine."""
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no cgroup of version 2, or "max"
        return None
    return (limit, max(0, used - _reclaimable())) if limit < psutil.virtual_memory().total else None


def _reclaimable() -> int:
    """Bytes of files that the cgroup holds in memory and gives up when it is full: the base that was just copied."""
    with suppress(OSError, StopIteration, ValueError):
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return 0
