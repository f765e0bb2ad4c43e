"""Whether the disks have room for what a training writes: before its first step, each checkpoint, and its export."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage.blobs.model_sizes import sizes_of_folder
from storage.errors import DiskFull
from storage.free_space import Volume, volumes
from storage.records.accounts.quotas import in_units
from storage.records.jobs.costs.disk import DiskEstimate, estimate_disk, less_to_write, smaller_checkpoints
from storage.records.jobs.costs.sizes import ModelSizes
from storage.records.jobs.jobs import Checkpoint
from storage.records.jobs.training import TrainingRecipe
from storage.settings import Settings

log = logging.getLogger("darkroom.checkpoints")

RETRY = "Make room there and retry the job: it goes on from its last checkpoint"


@dataclass(frozen=True)
class DiskRoom:
    """The disks that a job writes to: its working folder's, and the blob store's where that is on this machine.

    stored: the job's checkpoints that the store has. floor: bytes that are to stay free for everything else; a job that
    has begun may use them.
    """

    recipe: TrainingRecipe
    work: Volume
    blobs: Volume | None
    stored: Callable[[], Sequence[Checkpoint]] = lambda: ()
    floor: int = 0

    def check_job(self, sizes: ModelSizes) -> list[str]:
        """Refuse a job that will need more than there is, now rather than in the middle of the night; warn of one that
        would leave less than the floor.

        Raises DiskFull naming the disk, what is needed and what is free.
        """
        stored = self.stored()
        need = estimate_disk(sizes, self.recipe, [one.step for one in stored])
        log.info("the job needs up to %d bytes on disks: %s", need.peak, need)
        changes = less_to_write(sizes, self.recipe)
        advice = f"{RETRY}.{f' Another job would write less with {changes}.' if changes else ''}"
        present = sum(one.size for one in stored)
        # An earlier job, or attempt, may have drawn them.
        alone = msgspec.structs.replace(need, class_images=0)
        self._refuse(f"The job ({alone})", self._places(alone, present), advice)
        return self._tight(self._places(need, present), advice)

    def check_fit(self, folder: Path) -> None:
        """The same for the base model in a folder, before the first step. Raises DiskFull."""
        for warning in self.check_job(sizes_of_folder(folder)):
            log.warning("%s", warning)

    def check_checkpoint(self, size: int) -> None:
        """Refuse to begin a checkpoint of `size` bytes that there is no room for. Raises DiskFull.

        What was kept before stays; a write that fails in its middle would leave a full disk to everything else.
        """
        changes = smaller_checkpoints(self.recipe)
        advice = f"{RETRY}.{f' Checkpoints of another job are smaller with {changes}.' if changes else ''}"
        self._refuse("A checkpoint", self._each(size, size, size), advice)

    def export_folder(self, base: Path) -> Path:
        """Where to export a fine-tune of the base model in a folder: a path with nothing there, on a disk with room.

        Raises DiskFull where there is none.
        """
        target = self.work.folder / "export"
        # What a cut-off export of this process left may be half a file, and would count as taken.
        shutil.rmtree(target, ignore_errors=True)
        need = estimate_disk(sizes_of_folder(base), self.recipe)
        places = self._each(need.export_copies, need.export, need.export_copies + need.export)
        self._refuse("The export", places, "Make room there and retry the job: it goes on with the export.")
        return target

    def _places(self, need: DiskEstimate, present: int) -> list[tuple[Volume, int]]:
        return self._each(need.in_work_folder, need.in_store - present, need.peak - present)

    def _each(self, work: int, store: int, together: int) -> list[tuple[Volume, int]]:
        """Each disk with the bytes that are wanted of it; `together` where work folder and store are on one."""
        if self.blobs is None:
            return [(self.work, work)]
        if self.work.device() == self.blobs.device():
            return [(self.blobs, together)]
        return [(self.work, work), (self.blobs, store)]

    def _refuse(self, what: str, places: Sequence[tuple[Volume, int]], advice: str) -> None:
        for volume, size in places:
            if (free := volume.free()) < size:
                raise DiskFull(f"{what} needs {_of(size, free, volume)}. {advice}")

    def _tight(self, places: Sequence[tuple[Volume, int]], advice: str) -> list[str]:
        return [
            f"The job may need {_of(size, free, volume)}, of which {in_units(self.floor)} are to stay free. {advice}"
            for volume, size in places
            if (free := volume.free()) - self.floor < size
        ]


def disk_room(
    settings: Settings,
    recipe: TrainingRecipe,
    work_folder: Path,
    stored: Callable[[], Sequence[Checkpoint]] = lambda: (),
) -> DiskRoom:
    """The disks of a job that works in `work_folder`. `stored`: see DiskRoom."""
    blobs = next((volume for volume in volumes(settings) if volume.name == "blobs"), None)
    floor = settings.quotas.free_space_bytes
    return DiskRoom(recipe, Volume("working folder", work_folder), blobs, stored, floor)


def _of(size: int, free: int, volume: Volume) -> str:
    return f"{in_units(size)} on the disk of the {volume.name}, and {in_units(free)} are free"
