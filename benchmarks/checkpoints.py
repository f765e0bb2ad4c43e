"""A checkpoint's pause beside a bare write and fsync of as many bytes, on one disk, in turns.

    python -m benchmarks.checkpoints [FOLDER] [--gigabytes 0.5] [--rounds 5]

SIZE=full takes 10.3 GB, as the whole of Stable Diffusion 1.5 and its moments have, nine times.

A pause is that of a training: the check for numbers, and either a copy in memory or the file with all its bytes. After
it the training goes on, and a thread takes the hash, waits for the disk and gives the file its name in the blob store:
that is "until stored", without the rows in Postgres. Both ways begin with nothing left to write. A disk that others use
is uneven: the ways take turns in being first, the ratio is of the medians, and the range of each is printed too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.dreambooth.ours import bare_write
from flows.diffusion.finite import is_finite
from flows.runs.host_memory import free_host_bytes
from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpointing.writer import CheckpointWriter
from flows.training.checkpoints import TrainingState, checkpoint_content
from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.lookup import optimizer_named
from storage.blobs.store import BlobStore
from storage.settings import BlobSettings

FULL = os.environ.get("SIZE") == "full"
GIGABYTES, ROUNDS = (10.3, 9) if FULL else (0.5, 5)
GOAL = 1.2
PLENTY = 1 << 50
BARE = "bare write and fsync"
LAYER_BYTES = 12 * (640 * 640 * 9 + 1280 * 5120)
"""Of one convolution and one linear layer with both moments of AdamW."""


def state_of(gigabytes: float) -> TrainingState:
    """A training after its first step: half convolutions, half linear layers."""
    count = max(1, round(gigabytes * 1e9 / LAYER_BYTES))
    layers = nn.ModuleList()
    for _ in range(count):
        layers += [nn.Conv2d(640, 640, 3, bias=False), nn.Linear(1280, 5120, bias=False)]
    groups = (ParameterGroup("unet", dict(layers.named_parameters()), 1e-5, 0.01),)
    optimizer = optimizer_named("adamw").begin(groups)
    for parameter in layers.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    optimizer.zero_grad()
    return TrainingState(groups, optimizer)


@dataclass
class OneBlob:
    """A checkpoint store that holds the newest one."""

    blobs: BlobStore
    newest: list[str] = field(default_factory=list[str])
    owner: str = "benchmark"

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Store it."""
        self.newest = [*self.newest, self.blobs.put_hashed(file, sha256).sha256]

    def drop(self) -> None:
        """Make room for the next one."""
        for sha256 in self.newest:
            self.blobs.delete(sha256)
        self.newest = []


def pause(state: TrainingState, step: int, writer: CheckpointWriter) -> float:
    """Seconds that a training stands still for a checkpoint."""
    started = time.perf_counter()
    for group in state.groups:
        assert all(is_finite(parameter) for parameter in group.parameters.values())
    # Another step each time, so that no two have the same bytes: the store would have them.
    writer.write(step, checkpoint_content(step=step, fingerprint="0" * 64, owner="benchmark", state=state))
    return time.perf_counter() - started


def measure(folder: Path, gigabytes: float, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each round of each way, and the bytes of a checkpoint."""
    store = OneBlob(BlobStore(BlobSettings(url=f"file://{folder}/blobs")))
    store.blobs.make_root()
    state = state_of(gigabytes)

    def writer(copies: HostCopies) -> CheckpointWriter:
        return CheckpointWriter(store, folder, copies, stopping=nullcontext, room=lambda size: None)

    writers = {"written": writer(HostCopies(torch.device("cpu"), 0))}
    if free_host_bytes() > 1.2e9 * gigabytes:
        writers["copied"] = writer(HostCopies(torch.device("cuda"), 0, lambda: PLENTY))
    pause(state, 1, writers["written"])
    writers["written"].wait()
    with store.blobs.open(store.newest[-1]) as stream:
        size = stream.seek(0, os.SEEK_END)
    seconds: dict[str, list[float]] = {BARE: []}

    def ours(how: str, number: int) -> None:
        started = time.perf_counter()
        stood = pause(state, number, writers[how])
        writers[how].wait()
        seconds.setdefault(f"pause, {how}", []).append(stood)
        seconds.setdefault(f"until stored, {how}", []).append(time.perf_counter() - started)

    turns: list[Callable[[int], None]] = [
        lambda number: seconds[BARE].append(bare_write(folder / "bare", size)),
        *(partial(ours, how) for how in writers),
    ]
    for number in range(rounds):
        for place, turn in enumerate(turns if number % 2 == 0 else turns[::-1]):
            # Nothing of the turn before may be left for the disk to do.
            store.drop()
            os.sync()
            turn(number * len(turns) + place + 2)
    for one in writers.values():
        one.close()
    return seconds, size


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        seconds, size = measure(Path(folder), asked.gigabytes, asked.rounds)
    print(f"a checkpoint of {size / 1e9:.2f} GB, {asked.rounds} rounds, {torch.get_num_threads()} threads")
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(f"{name:<22}{middle:8.2f} s, {min(found):.2f} to {max(found):.2f}  {size / middle / 1e6:7.0f} MB/s")
    base = statistics.median(seconds[BARE])
    for name, found in seconds.items():
        if name.startswith("pause"):
            middle, how = statistics.median(found), name.split()[-1]
            print(f"figure checkpoint-pause-{how} {middle:.3f} {base:.3f} {middle / base:.3f} goal <={GOAL}")


if __name__ == "__main__":
    main()
