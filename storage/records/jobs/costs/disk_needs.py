"""The room on disks that a training needs, from what it trains: before it starts, and for an estimate before that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from storage.records.accounts.quotas import in_units
from storage.records.jobs.choices import TrainingMethod, TrainingOptimizer

WEIGHT_BYTES = 4
"""Of one trained weight: training keeps float32 in any precision."""
ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Of one exported weight, by a request's `exportDtype`."""


class DiskSettings(Protocol):
    """What of a recipe, or of a base model's defaults, decides how much is written."""

    @property
    def method(self) -> str: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def ema_decay(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def keep_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def export_dtype(self) -> str: ...


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a job writes to disks. `checkpoint`: one; `checkpoints`: how many there are at most, the one that is
    being written among them; `export`: the files of the result, which are there twice while the version is stored."""

    checkpoint: int
    checkpoints: int
    export: int

    @property
    def in_store(self) -> int:
        """The most that the blob store holds at a time: while the last checkpoints are there until the version is."""
        return max(self.checkpoints * self.checkpoint, (self.checkpoints - 1) * self.checkpoint + self.export)

    @property
    def in_work_folder(self) -> int:
        """The most that lies in the working folder at a time, where that is on another disk than the store."""
        return max(self.checkpoint, self.export)

    @property
    def on_one_disk(self) -> int:
        """The same where both are on one disk: a checkpoint is linked and takes its room once, an export is copied."""
        return max(self.checkpoints * self.checkpoint, (self.checkpoints - 1) * self.checkpoint + 2 * self.export)

    def __str__(self) -> str:
        """What the bytes are for, for a person."""
        many = "checkpoint" if self.checkpoints == 1 else "checkpoints"
        return f"{self.checkpoints} {many} of {in_units(self.checkpoint)}, and {in_units(self.export)} of results"


def disk_need(settings: DiskSettings, *, trained: int, weights: int, weight_files_bytes: int) -> DiskNeed:
    """What a training writes that trains `trained` weights of a base model of `weights` in all, whose files take
    `weight_files_bytes`. Within 10 % of what is written, except of Adafactor's checkpoints, which may be smaller."""
    state = TrainingOptimizer(settings.optimizer).state_bytes + (WEIGHT_BYTES if settings.ema_decay > 0 else 0)
    checkpoint = int(trained * (WEIGHT_BYTES + state))
    return DiskNeed(checkpoint, checkpoints_at_once(settings), _export(settings, trained, weights, weight_files_bytes))


def checkpoints_at_once(settings: DiskSettings) -> int:
    """How many checkpoints of a job there are at most, the one that is being written among them."""
    written = -(-settings.steps // settings.checkpoint_every)
    staying = settings.steps // settings.keep_every if settings.keep_every else 0
    # One more than are kept, while it is written. Those that stay may be among the newest; that is not counted on.
    return min(written, settings.keep_checkpoints + 1 + staying)


def _export(settings: DiskSettings, trained: int, weights: int, weight_files_bytes: int) -> int:
    dtype = ELEMENT_BYTES.get(settings.export_dtype)
    if settings.method == TrainingMethod.LORA.value:
        one = trained * (dtype or WEIGHT_BYTES)
    else:
        one = weight_files_bytes if dtype is None else weights * dtype
    # Every method writes its result twice: in one file, and as diffusers reads it.
    return 2 * one
