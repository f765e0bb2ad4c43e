"""Our side: the fit of a training job, with the hooks that its libraries offer around the stages of a step."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.dreambooth.stages import Asked, Stages, report
from benchmarks.training import FAMILY, pictures, recipe
from flows.diffusion.devices import prepare_torch
from flows.diffusion.memory import peak_bytes, start_peak
from flows.training.callbacks import StepReport, Watch
from flows.training.checkpointing.writer import CheckpointPause
from flows.training.fit import fit
from flows.training.module import DreamBoothModule
from flows.training.photos.encodings import deferred_parts
from flows.training.photos.latents import TrainingImages, encode_images
from flows.training.tensor_files import bytes_of
from storage.blobs.store import BlobStore
from storage.settings import BlobSettings

PIECE = 64 * 2**20
CHECKPOINTS = {"full": 3, "lora": 1}
"""How many are measured; between two lie as many steps as before the first, in which that is hashed and stored."""


@dataclass
class BlobCheckpoints:
    """A checkpoint store as a job has it, without the rows: a blob store on this machine's disk."""

    blobs: BlobStore
    owner: str = "benchmark"
    sizes: list[int] = field(default_factory=list[int])
    stored: list[float] = field(default_factory=list[float])

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Link it, and forget it."""
        self.sizes.append(self.blobs.put_hashed(file, sha256).size)
        self.stored.append(time.perf_counter())


class TimedFamily:
    """The family, whose calls of the model are stages."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def __getattr__(self, name: str) -> Any:
        return getattr(FAMILY, name)

    def predict(self, *arguments: Any) -> Any:
        """The forward pass."""
        with self._stages.stage("forward"):
            return FAMILY.predict(*arguments)

    def encode_prompts(self, *arguments: Any) -> Any:
        """Of each prompt once, in the first step."""
        with self._stages.stage("text encoder"):
            return FAMILY.encode_prompts(*arguments)


def time_backward_and_update(stages: Stages) -> None:
    """Have Lightning's hooks count the backward passes, and clipping with the optimizer's update."""
    began = 0.0

    def before(module: DreamBoothModule, *_: Any) -> None:
        nonlocal began
        began = stages.now()

    def after_backward(module: DreamBoothModule) -> None:
        stages.add("backward", stages.now() - began)

    def after_update(*_: Any) -> None:
        stages.add("clip and update", stages.now() - began)

    hooks: Any = DreamBoothModule
    hooks.on_before_backward, hooks.on_after_backward, hooks.on_before_optimizer_step = before, after_backward, before
    register_optimizer_step_post_hook(after_update)


def run(asked: Asked, method: str, **changes: Any) -> dict[str, Any]:
    """The steps and a checkpoint of the last one; as many more for each other checkpoint."""
    device = prepare_torch(asked.threads)
    steps = asked.steps * CHECKPOINTS[method]
    wanted = recipe(steps, asked.threads, asked.resolution, batch_size=asked.batch, method=method, **changes)
    wanted = replace(wanted, checkpoint_every=asked.steps)
    # As a job reads them: VAE and text encoder when they are used, and not while nothing does.
    components = FAMILY.load(Path(asked.folder), deferred_parts(FAMILY, wanted)).to(device)
    stages = Stages(device)
    family: Any = TimedFamily(stages)
    time_backward_and_update(stages)
    start_peak(device)
    began = time.perf_counter()
    # The class images are the photos again: what is measured does not depend on what they show.
    latents = encode_images(FAMILY, components, pictures(asked.resolution, asked.batch), asked.resolution)
    cached = time.perf_counter() - began
    times: dict[str, float] = {}
    bare: list[float] = []
    begun: list[float] = []
    paused: list[float] = []

    def stepped(report: StepReport) -> None:
        stages.step_ended()
        if report.step <= asked.steps:
            times["peak"] = peak_bytes(device)
        if (report.step + 1) % asked.steps == 0:
            # Beside the training's memory, as the checkpoint is: what is free holds what the disk has not yet. A step
            # before it, since what follows at once takes twice as long: the file system is still busy with this one.
            bare.append(bare_write(Path(name) / "bare", int(times["size"])))
            stages.start()
        elif report.step % asked.steps == 0:
            begun.append(time.perf_counter())

    def kept(_: CheckpointPause) -> None:
        paused.append(time.perf_counter() - begun[-1])

    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        blobs = BlobStore(BlobSettings(url=(Path(name) / "blobs").as_uri()))
        blobs.make_root()
        checkpoints = BlobCheckpoints(blobs)
        stages.start()
        fit(
            wanted,
            family,
            components,
            TrainingImages(latents, latents),
            recipe_hash=wanted.fingerprint(),
            newest=None,
            checkpoints=checkpoints,
            work_folder=Path(name),
            # A weight and its two moments.
            watch=Watch(on_begin=lambda count: times.update(size=12.0 * count), on_step=stepped, on_checkpoint=kept),
        )
    # The header has some hundred bytes for each tensor.
    assert checkpoints.sizes[0] < 1.1 * times["size"] + 1e6, "the bare write was of fewer bytes"
    stored = [end - start for start, end in zip(begun, checkpoints.stored, strict=True)]
    # The best of each on both sides: a disk has other users.
    pause = {"bytes": checkpoints.sizes[0], "ours": min(paused), "stored": min(stored), "bare": min(bare)}
    del stages.steps[asked.steps :]
    return report(stages, int(times["peak"]), checkpoint=pause, cache_seconds=cached)


def bare_write(file: Path, size: int) -> float:
    """Seconds to write and sync a file of so many bytes; it is gone afterwards."""
    piece = bytes_of(torch.randint(0, 256, (PIECE,), dtype=torch.uint8))
    began = time.perf_counter()
    with file.open("wb", buffering=0) as stream:
        left = size
        while left:
            left -= stream.write(piece[: min(left, PIECE)])
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - began
    file.unlink()
    return seconds
