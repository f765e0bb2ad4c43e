"""Whether the disks have room for what a training writes: before its first step, and before each checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.diffusion.families.layout import weight_files_of
from flows.diffusion.families.protocol import Family
from storage.blobs.weights import check_weights
from storage.errors import DiskFull
from storage.free_space import Volume, volumes
from storage.records.accounts.quotas import in_units
from storage.records.jobs.costs.disk_needs import DiskNeed, disk_need
from storage.records.jobs.training import TrainingRecipe
from storage.settings import Settings

log = logging.getLogger("darkroom.checkpoints")

LESS = (
    "Make room there, or ask for keepCheckpoints 1, no keepEvery, an optimizer with 8 bits, exportDtype fp16 or the "
    "method lora; then retry the job"
)


@dataclass(frozen=True)
class DiskRoom:
    """The disks that a job writes to: its working folder's, and the blob store's where that is on this machine."""

    work: Volume
    blobs: Volume | None
    present: Callable[[], int] = lambda: 0
    """Bytes of the job's checkpoints that the store has already."""

    def check_job(self, need: DiskNeed) -> None:
        """Refuse a job that will need more than there is, now rather than in the middle of the night.

        Raises DiskFull naming the disk, what is needed and what is free.
        """
        present = self.present()
        log.info("the job needs up to %d bytes on disks: %s", need.on_one_disk, need)
        if self.blobs is None:
            _refuse(self.work, need.in_work_folder, need)
        elif self.work.device() == self.blobs.device():
            _refuse(self.blobs, need.on_one_disk - present, need)
        else:
            _refuse(self.work, need.in_work_folder, need)
            _refuse(self.blobs, need.in_store - present, need)

    def check_checkpoint(self, size: int) -> None:
        """Refuse to begin a checkpoint of `size` bytes that there is no room for. Raises DiskFull.

        What was kept before stays; a write that fails in its middle would leave a full disk to everything else.
        """
        for volume in (self.work, self.blobs):
            if volume is not None and (free := volume.free()) < size:
                raise DiskFull(
                    f"A checkpoint needs {in_units(size)} on the disk of the {volume.name}, and {in_units(free)} are "
                    f"free. {LESS}: it goes on from its last checkpoint."
                )


def need_of(recipe: TrainingRecipe, family: Family, base: Path, trained: int) -> DiskNeed:
    """What a job writes that trains so many weights of the base model in a folder: by the headers of its files."""
    files = [file for name in family.layout.weight_files.values() for file in weight_files_of(base / name)]
    return disk_need(
        recipe,
        trained=trained,
        weights=sum(check_weights(file).parameters for file in files),
        weight_files_bytes=sum(file.stat().st_size for file in files),
    )


def disk_room(settings: Settings, work_folder: Path, present: Callable[[], int] = lambda: 0) -> DiskRoom:
    """The disks of a job that works in `work_folder`. `present`: see DiskRoom."""
    blobs = next((volume for volume in volumes(settings) if volume.name == "blobs"), None)
    return DiskRoom(Volume("working folder", work_folder), blobs, present)


def _refuse(volume: Volume, size: int, need: DiskNeed) -> None:
    free = volume.free()
    if free < size:
        raise DiskFull(
            f"The job needs {in_units(size)} on the disk of the {volume.name} ({need}), and {in_units(free)} are free. "
            f"{LESS}."
        )
