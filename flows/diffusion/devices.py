"""The machine that work runs on, and torch set so that equal recipes produce equal bytes on it."""

from __future__ import annotations

import os
from importlib.metadata import version

import torch

from storage.records.jobs.machines import Machine
from storage.settings import Settings

# Part of the recipe, and so of its hash: with another version a set of class images is another set, drawn again.
LIBRARIES = ("torch", "diffusers", "transformers", "pytorch-lightning", "pillow")
"""Libraries whose version changes the bytes of an image or of weights."""


def this_machine(settings: Settings) -> Machine:
    """What this process adds to the recipe of a job that it claims."""
    return Machine(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        threads=settings.jobs.threads or os.cpu_count() or 1,
        libraries={name: version(name) for name in LIBRARIES},
    )


def prepare_torch(threads: int) -> torch.device:
    """Set the number of threads and deterministic kernels; returns the GPU if there is one, else the CPU.

    The number of threads changes sums, so it is a part of the recipe. On a GPU a kernel without a deterministic form
    warns instead of stopping the job. Raises ValueError for a recipe that no claim has resolved: it has no threads.
    """
    if threads < 1:
        raise ValueError("The recipe says nothing of its machine; claim its job with `this_machine` first.")
    torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it in deterministic mode
        torch.backends.cudnn.benchmark = False
    # warn_only on a GPU, because strict mode stops at the first kernel without a deterministic form; so bits are
    # promised on CPUs alone: in float32 the backward pass of memory-efficient attention is not deterministic.
    torch.use_deterministic_algorithms(True, warn_only=cuda)
    return torch.device("cuda" if cuda else "cpu")
