"""Why a job failed, in words for its owner: what happened and what to do, nothing internal."""

from __future__ import annotations

import errno

from storage.errors import DiskFull, InvalidRequest, JobCannotSucceed, OutOfMemory, UnusableWeights, WeightsRefused

SMALLER_STEPS = "ask for a smaller batchSize, gradientCheckpointing, splitBackward, or precision bf16"
# torch raises a plain RuntimeError: its CPU allocator's text, CUDA's, and those of the libraries it calls.
OUT_OF_MEMORY_TEXTS = (
    *("can't allocate memory", "not enough memory", "out of memory", "cannot allocate", "bad_alloc"),
    *("can't start new thread", "could not create a memory", "could not create a primitive"),
    *("alloc_failed", "allocation_failed"),
)
"""What says so when it is no MemoryError: torch's allocator, C++, Python's threads, oneDNN, cuBLAS, cuDNN."""
GPU_TEXTS = ("cuda", "cudnn", "cublas", "cusolver", "cusparse", "cufft")
"""What says that it was on a GPU."""
HOST_TEXTS = ("host_allocation_failed",)
"""What says that it was in the host's memory, though a GPU's library says so."""


def named_failure(error: Exception, phase: str = "") -> JobCannotSucceed:
    """The reason that a failed job shows for an error in a phase: what happened and what to do, nothing internal."""
    if isinstance(error, JobCannotSucceed):
        return error
    # A name that this worker's release does not know: the sentence says which it does.
    if isinstance(error, InvalidRequest):
        return JobCannotSucceed(f"{error} Retry the job when the workers run the release that knows it.")
    # Its own sentence says which tensor or file, and what to ask for instead.
    if isinstance(error, WeightsRefused):
        return UnusableWeights(str(error))
    # An error while the first one is handled hides it: a MemoryError often raises another one on its way out.
    if any(says_out_of_memory(one) for one in (error, error.__cause__, error.__context__)):
        return OutOfMemory(_memory_text(error, phase))
    # EDQUOT is what a full quota of a user or of NFS says.
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("A disk is full. Free some space, then retry the job: it goes on from its last checkpoint.")
    return JobCannotSucceed(
        f"{type(error).__name__} in the flow. Its log in Prefect says where; fix it and retry the job."
    )


def _memory_text(error: Exception, phase: str) -> str:
    on_gpu = any(_says_gpu(one) for one in (error, error.__cause__, error.__context__))
    happened = "The GPU has no memory left" if on_gpu else "The flow's process reached its memory limit"
    room = "run it on a larger card" if on_gpu else "raise DARKROOM_JOBS__MEMORY_LIMIT_BYTES"
    where = f" in the phase '{phase}'" if phase else ""
    # Only a training step grows with these; elsewhere the advice would lead nowhere.
    less = f"{SMALLER_STEPS}; or " if phase in ("", "fit") else ""
    return f"{happened}{where}. To need less, {less}{room}; then retry the job: it goes on from its last checkpoint."


def _says_gpu(error: BaseException | None) -> bool:
    text = str(error).lower()
    return any(one in text for one in GPU_TEXTS) and not any(one in text for one in HOST_TEXTS)


def says_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that there is no memory left, on the host or on a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(one in text for one in OUT_OF_MEMORY_TEXTS)
