"""Dask workers for the small units of one task: processes of this machine, or the cluster at an address.

A worker on this machine sees one GPU alone where there are some: two that load a model on the same one would run out of
its memory, or take turns. That no two workers hold the same one is checked before they get work.

What a worker is sent it unpickles, which is running it. So nobody speaks with one unencrypted: a cluster of this
machine lives for one block and has certificates that exist in its memory only; another one is reached with the
certificates of Dask's own settings (DASK_DISTRIBUTED__COMM__TLS__CA_FILE and ...__CLIENT__CERT, ...__CLIENT__KEY).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import dask
from dask.distributed import Client, LocalCluster
from distributed.security import Security
from distributed.worker import get_worker

from flows.runs.host_memory import host_bytes
from flows.runs.liveness import PROCESS, advanced
from storage.errors import JobCannotSucceed, Refused

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
GPU_DRIVER = Path("/dev/nvidiactl")
PROGRESS = "progress"
"""Dask's topic of signs of progress."""
# Pages with the state of the scheduler and its workers, which ask nobody who they are.
NO_PAGES = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


class UnencryptedDask(Refused):
    """The address of a Dask scheduler that takes work from everybody."""

    code = "unencrypted_dask"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is not a tls:// address, and Dask runs what anybody sends it there. Start the scheduler and "
            "its workers with --tls-ca-file, --tls-cert and --tls-key."
        )


class GpuHeldTwice(JobCannotSucceed):
    """Two workers would load their models on one GPU."""

    code = "gpu_held_twice"


class PinnedCluster(LocalCluster):
    """Processes of this machine, the n-th of which sees the n-th of the devices alone."""

    def __init__(self, devices: Sequence[str], **options: Any) -> None:
        self._devices = tuple(devices)
        super().__init__(n_workers=0, **options)

    def new_worker_spec(self) -> Any:
        """What the next worker is started with; also in the place of one that died."""
        found = cast(dict[int, dict[str, Any]], cast(Any, super()).new_worker_spec())
        return {
            name: {**spec, "options": {**spec["options"], "env": environment_of(self._devices[int(name)])}}
            for name, spec in found.items()
        }


def environment_of(device: str) -> dict[str, str]:
    """The variables of a worker that sees one GPU, as CUDA's driver names it; of a CPU's worker none."""
    return {VISIBLE_GPUS: device} if device else {}


@contextmanager
def drawing_client(devices: Sequence[str], address: str = "") -> Generator[Client]:
    """As `dask_client`, for workers that load a model each. Their signs of progress are signs of this process.

    Raises UnencryptedDask, and GpuHeldTwice.
    """
    with dask_client(devices, address) as client:
        check_held(cast(dict[str, str], client.run(held_gpu)))
        client.subscribe_topic(PROGRESS, lambda _: advanced())
        yield client


def held_gpu() -> str:
    """In a worker: the GPU that it would use, by its machine and its own name; empty without one."""
    # Without the variable a process sees all, and uses the first.
    device = os.environ.get(VISIBLE_GPUS, "0" if GPU_DRIVER.exists() else "")
    return f"{socket.gethostname()} GPU {device.split(',')[0]}" if device else ""


def check_held(held: Mapping[str, str]) -> None:
    """Refuse to give work to workers that would use one GPU together. `held`: the GPU of each worker, or an empty text.

    Raises GpuHeldTwice.
    """
    by_gpu: dict[str, list[str]] = {}
    for worker, gpu in held.items():
        if gpu:
            by_gpu.setdefault(gpu, []).append(worker)
    for gpu, workers in by_gpu.items():
        if len(workers) > 1:
            raise GpuHeldTwice(
                f"{len(workers)} Dask workers hold {gpu}: {', '.join(sorted(workers))}. Start each with another "
                f"{VISIBLE_GPUS}, then retry the job."
            )


@contextmanager
def progress_reported() -> Generator[None]:
    """In a worker: tell the process that sent the work of signs of progress, once a second at most."""
    worker, last = get_worker(), [0.0]

    def report() -> None:
        now = time.monotonic()
        if now - last[0] >= 1:
            last[0] = now
            worker.log_event(PROGRESS, {"at": now})

    with PROCESS.heard_by(report):
        yield


@contextmanager
def dask_client(devices: Sequence[str], address: str = "") -> Generator[Client]:
    """A client of the scheduler at `address`, or of a process of this machine for each device, with one thread each. A
    device is a GPU as CUDA_VISIBLE_DEVICES names it, or empty for the CPU.

    Raises UnencryptedDask for an address without TLS.
    """
    if address:
        if not address.startswith("tls://"):
            raise UnencryptedDask(address)
        with Client(address, security=Security(require_encryption=True)) as client:
            yield client
        return
    # One thread a worker: the threads of a recipe are torch's, inside of that one.
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    options["memory_limit"] = host_bytes() // len(devices)
    with (
        dask.config.set(NO_PAGES),
        # security=True makes certificates for this one cluster; the default takes work from any process of the machine.
        PinnedCluster(devices, security=True, **options) as local,
        Client(local) as client,
    ):
        cast(Any, local).scale(len(devices))
        client.wait_for_workers(len(devices))
        yield client
