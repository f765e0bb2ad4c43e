"""Whether a training fits this machine, asked before its first hour is spent: memory by the estimate, and disk."""

from __future__ import annotations

from pathlib import Path

import torch

from flows.diffusion.memory import free_bytes
from flows.runs.host_memory import host_bytes
from flows.training.checkpointing.room import DiskRoom
from storage.blobs.model_sizes import sizes_of_folder
from storage.errors import OutOfMemory, WeightsRefused
from storage.records.accounts.quotas import in_units
from storage.records.jobs.costs.advice import savings, savings_in_words
from storage.records.jobs.costs.memory import CPU_PROCESS, MARGIN, estimate_memory
from storage.records.jobs.training import TrainingRecipe

_BF16_FROM = (8, 0)


class DoesNotFit(OutOfMemory):
    """By the estimate the steps need more memory than there is, even if it is too high by its whole margin."""

    code = "does_not_fit"


def check_fits(
    folder: Path, recipe: TrainingRecipe, device: torch.device, room: DiskRoom, photos: int = 0, prompts: int = 0
) -> list[str]:
    """Warnings for a training that is about to start on the base model in `folder`; none where it fits.

    photos: how many it learns from; prompts: how many different ones they have.

    Raises DoesNotFit with what to change where it cannot: on a GPU beside what others hold there, on the CPU in the
    memory of the whole machine, since others may leave it. Raises DiskFull.
    """
    try:
        sizes = sizes_of_folder(folder)
    except WeightsRefused:
        return []  # loading it will say what is missing
    memory = estimate_memory(sizes, recipe, photos, prompts)
    available, whole = memory_of(device)
    needed = memory.peak + (CPU_PROCESS if device.type == "cpu" else 0)
    if needed * (1 - MARGIN) > (available if device.type == "cuda" else whole):
        raise DoesNotFit(f"{_needs(needed, available, device)} {savings_in_words(savings(sizes, recipe, memory))}")
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    warnings = precision_warnings(recipe.precision, capability)
    if needed > available:
        warnings.append(f"{_needs(needed, available, device)} {savings_in_words(savings(sizes, recipe, memory))}")
    return warnings + room.check_job(sizes)


def precision_warnings(precision: str, capability: tuple[int, int] | None) -> list[str]:
    """What to change where a GPU of this compute capability computes in bf16 by emulation only; None is no GPU."""
    if precision != "bf16" or capability is None or capability >= _BF16_FROM:
        return []
    has = ".".join(map(str, capability))
    return [f"This GPU (compute capability {has}) has no bf16 of its own, and emulates it slowly: use precision: fp16."]


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes that this process can still use on the device, and that the device has: for the CPU within its cgroup, and
    no more than the limit on its data memory leaves."""
    whole = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else host_bytes()
    return free_bytes(device), whole


def _needs(needed: int, available: int, device: torch.device) -> str:
    where = "this GPU" if device.type == "cuda" else "this machine"
    return (
        f"Training needs about {in_units(needed)} of memory (±{MARGIN * 100:.0f} %), and {where} has "
        f"{in_units(available)} free."
    )
