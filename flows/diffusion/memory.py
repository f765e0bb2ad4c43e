"""The most memory that a piece of work needed, on the device that it ran on."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def start_peak(device: torch.device) -> None:
    """From now on `peak_bytes` is of what follows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # 5 sets the peak of the resident memory to what is resident now (proc(5)); only Linux has it.
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """The peak since `start_peak`: of a GPU what torch had allocated, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    # Without /proc: of the whole process, in units of 1024 bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
