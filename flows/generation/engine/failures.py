"""What went wrong in an engine, as it is sent to whoever asked: what fails again, and what another engine may do."""

from __future__ import annotations

import torch

from flows.jobs.failures import GPU_TEXTS, named_failure, says_out_of_memory
from storage.errors import BackendUnavailable, DarkroomError, JobStalled, WeightsRefused

AGAIN = "It is asked for again when the engine is back."


class DeviceLost(Exception):
    """The device fails whatever it is asked for: this process ends, and the next one finds it well, or reports it."""


def is_lost(error: Exception) -> bool:
    """Whether an error says that each later call of this process fails as well: an illegal access, a lost card.

    CUDA keeps such an error for the process; torch raises it as AcceleratorError, its libraries as RuntimeError.
    """
    if says_out_of_memory(error):
        return False
    text = str(error).lower()
    lost = isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(one in text for one in GPU_TEXTS)
    )
    return lost and torch.cuda.is_available()


def failure_of(error: Exception) -> tuple[str, str]:
    """Code and reason of an error, of the project's list.

    What hung, or failed since the device is lost, is sent as an engine that is unavailable: it may be asked for again.
    """
    if isinstance(error, JobStalled):
        return BackendUnavailable.code, f"The engine hung while it drew this. {AGAIN}"
    if is_lost(error):
        return BackendUnavailable.code, f"The engine's device failed ({type(error).__name__}). {AGAIN}"
    if isinstance(error, DarkroomError) and not isinstance(error, WeightsRefused):
        return error.code, str(error)
    named = named_failure(error, "draw")
    return named.code, str(named)
