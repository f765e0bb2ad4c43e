"""The device that work runs on, and torch set so that equal recipes give equal bytes on it."""

from __future__ import annotations

import os

import torch


def prepare_torch(threads: int) -> torch.device:
    """Set the number of threads and deterministic kernels; returns the GPU if there is one, else the CPU.

    The number of threads changes sums, so it is a part of the recipe. On a GPU a kernel without a deterministic form
    warns instead of stopping the job.
    """
    torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it in deterministic mode
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=cuda)
    return torch.device("cuda" if cuda else "cpu")
