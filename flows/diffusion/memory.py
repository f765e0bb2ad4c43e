"""Memory: the most that a piece of work needed, on the device that it ran on, and what two models can share of it."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.runs.host_memory import free_host_bytes, status_bytes

_PROCESS = Path("/proc/self")
# madvise(2), of Linux 5.4: reclaims pages and keeps what they hold. An older one says EINVAL, and nothing happens.
_MADV_PAGEOUT = 21
# glibc's names of what mallopt(3) sets, which takes a C int.
# An unsigned number there, of which -1 is the largest: never.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _NEVER = -1, -3, -4, -1


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
    # Without /proc: of the whole process, in units of 1024 bytes.
    return status_bytes().get("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_freed(device: torch.device) -> None:
    """Give back what was dropped: to the card what torch keeps of it, to the system what the C library does.

    Tensors of up to 32 MiB lie on glibc's heap, where what is freed between others stays with the process: after a
    fit that was most of its gradients and moments.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    # malloc_trim(3) is glibc's own.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def freed_memory_kept(device: torch.device) -> Generator[None]:
    """In the block a CPU's freed memory stays with this process: the next step takes as much again.

    glibc gives blocks of more than 32 MiB back to the system at once, and the system clears every page that it gives
    out: of 2 GB of gradients that took 0.9 s of a core. What is free after the block `return_freed` gives back.
    """
    if device.type == "cuda":
        yield
        return
    _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER})
    try:
        yield
    finally:
        # Any of them ends that glibc chooses by itself: these are what it comes to with tensors.
        _set_malloc({_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20})


def _set_malloc(values: Mapping[int, int]) -> None:
    # mallopt(3) is glibc's own.
    with suppress(AttributeError, OSError):
        for name, value in values.items():
            ctypes.CDLL(None).mallopt(name, value)


def image_layout(device: torch.device) -> torch.memory_format:
    """How images and the weights of convolutions lie in memory while they train: by channels on a GPU.

    Not on a CPU: the passes take as long either way, and torch 2.13 works on what does not lie row by row element by
    element there. Its fused AdamW took 5 times as long, its least and greatest value 16 times (SD 1.5's largest
    convolution).
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def lay_out_weights(module: nn.Module) -> None:
    """Lay a module's weights out as its device likes them, and take them out of the file that they were loaded from.

    On the CPU all are slices of one mapping of that file, which stays whole, and counts as this process's data, until
    the last of them is gone: beside every copy that something makes of one. One after the other, so that no more than
    one of them is in memory twice.
    """
    files = _file_mappings()
    for tensor in (*module.parameters(), *module.buffers()):
        old = tensor.data
        new = old.to(memory_format=image_layout(old.device)) if old.dim() == 4 else old
        if old.device.type == "cpu":
            new = old.clone() if new.data_ptr() == old.data_ptr() else new
            # Not of one that was converted as it was read: it has memory of its own, which would go to the swap file.
            if any(old.data_ptr() in file for file in files):
                _page_out(old)
        tensor.data = new


def _file_mappings() -> list[range]:
    """The addresses at which this process has files mapped (proc(5)), but for the code of libraries."""
    found: list[range] = []
    with suppress(OSError):
        for line in (_PROCESS / "maps").read_text().splitlines():
            addresses, allowed, _, _, inode, *_ = line.split()
            if inode != "0" and "x" not in allowed:
                begin, end = (int(one, 16) for one in addresses.split("-"))
                found.append(range(begin, end))
    return found


def _page_out(tensor: Tensor) -> None:
    """Let the system take back the whole pages below a tensor that lies in a file; no number of it changes."""
    page = resource.getpagesize()
    begin = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page - begin
    if length > 0:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MADV_PAGEOUT)


def free_bytes(device: torch.device) -> int:
    """Bytes that may still be taken on a device: of a GPU what the driver has, and what torch holds unused."""
    if device.type != "cuda":
        return free_host_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def bytes_of_parameters(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def share_equal(module: nn.Module, other: nn.Module) -> int:
    """Let a module use those parameters of another that are its own bit for bit; returns the bytes that this saves.

    A layer under an adapter of PEFT has its own weights as `base_layer`.
    """
    theirs = {name.replace(".base_layer.", "."): parameter for name, parameter in other.named_parameters()}
    saved = 0
    for name, own in list(module.named_parameters()):
        found = theirs.get(name)
        if found is None or (found.shape, found.dtype) != (own.shape, own.dtype):
            continue
        if torch.equal(own.to(found.device), found):
            holder, _, last = name.rpartition(".")
            setattr(module.get_submodule(holder), last, found)
            saved += own.numel() * own.element_size()
    return saved
