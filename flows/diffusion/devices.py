"""The machine that work runs on, and torch set so that equal recipes produce equal bytes on it."""

from __future__ import annotations

import os
from importlib.metadata import version

import torch

from flows.diffusion.families.protocol import Components
from flows.runs.host_memory import free_host_bytes
from storage.errors import DevicesDiffer
from storage.records.jobs.machines import Machine
from storage.settings import Settings

# Part of the recipe, and so of its hash. A set of class images is drawn again for another second number, not a third.
LIBRARIES = (
    *("torch", "diffusers", "transformers", "pytorch-lightning", "pillow"),
    *("peft", "bitsandbytes", "pytorch-optimizer"),
)
"""Libraries whose version changes the bytes of an image or of weights."""
_PROCESS_BYTES = 1_000_000_000


def this_machine(settings: Settings) -> Machine:
    """What this process adds to the recipe of a job that it claims."""
    return Machine(
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        threads=settings.jobs.threads or os.cpu_count() or 1,
        libraries={name: version(name) for name in LIBRARIES},
    )


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(str(number) for number in range(torch.cuda.device_count()))
    return tuple(name.strip() for name in named.split(",") if name.strip())


def drawing_devices(threads: int, model_bytes: int, settings: Settings) -> tuple[str, ...]:
    """Where images are drawn side by side, a process each: every GPU, or else the CPU (an empty name) as often as its
    cores hold the threads of a recipe, since their number changes the bytes, and the free memory of this machine or
    container the model.

    A recipe's threads are all cores unless DARKROOM_JOBS__THREADS says less, so without GPUs one process draws by
    default. `settings.jobs.drawing_workers` is the most.
    """
    gpus = visible_gpus()
    if gpus:
        devices = gpus
    else:
        # Activations and what a process loads come to the weights.
        fitting = free_host_bytes() // (2 * model_bytes + _PROCESS_BYTES)
        devices = ("",) * max(1, min((os.cpu_count() or 1) // threads, fitting))
    return devices[: settings.jobs.drawing_workers or None]


def prepare_torch(threads: int) -> torch.device:
    """Set the number of threads and deterministic kernels; returns the GPU if there is one, else the CPU.

    The number of threads changes sums, so it is a part of the recipe. A kernel without a deterministic form stops the
    job with its name. Raises ValueError for a recipe that no claim has resolved: it has no threads.
    """
    if threads < 1:
        raise ValueError("The recipe says nothing of its machine; claim its job with `this_machine` first.")
    torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it in deterministic mode
        torch.backends.cudnn.benchmark = False
        # Of the kinds of attention only cuDNN's has no deterministic backward pass.
        torch.backends.cuda.enable_cudnn_sdp(False)
    # Not warn_only: it keeps the backward pass of memory-efficient attention that adds in any order, and is silent.
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda" if cuda else "cpu")


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_devices(components: Components, device: torch.device, phase: str) -> None:
    """Refuse to begin a phase with parts on another device. Raises DevicesDiffer naming each and where it is."""
    found = {
        f"{name}.{key}": tensor.device
        for name, module in components.modules.items()
        for key, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.device.type != device.type
    }
    if found:
        key, where = next(iter(found.items()))
        raise DevicesDiffer(f"{phase} begins with {len(found)} tensors off {device}: {key} is on {where}. Report this.")
