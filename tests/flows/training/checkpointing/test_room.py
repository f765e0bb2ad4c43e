"""A disk that is too small is found out before it is full, with what is needed, what is free, and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.training.checkpointing.room import DiskRoom, disk_room
from flows.training.checkpoints import checkpoint_content
from flows.training.methods.protocol import parameters_of
from storage.errors import DiskFull
from storage.free_space import Volume
from storage.records.jobs.choices import TrainingOptimizer
from storage.records.jobs.costs.disk_needs import DiskNeed, disk_need
from storage.settings import BlobSettings, Settings
from tests.flows.training.optimizers import small
from tests.flows.training.tiny import recipe

GIB = 1 << 30
NEED = DiskNeed(checkpoint=10 * GIB, checkpoints=3, export=8 * GIB)


class Disk(Volume):
    """A disk with so many free bytes, whatever is on it."""

    free_bytes: int

    def free(self) -> int:
        return self.free_bytes


def disk(name: str, folder: Path, free: int) -> Disk:
    made = Disk(name, folder)
    object.__setattr__(made, "free_bytes", free)
    return made


@pytest.fixture
def other_disk() -> Path:
    """A folder on another disk than that of temporary files."""
    return Path("/dev/shm")


def test_one_disk_holds_checkpoints_and_results_at_once(tmp_path: Path) -> None:
    room = DiskRoom(disk("working folder", tmp_path, 0), disk("blobs", tmp_path / "later", 36 * GIB - 1))
    with pytest.raises(DiskFull) as refused:
        room.check_job(NEED)
    assert str(refused.value) == (
        "The job needs 36 GiB on the disk of the blobs (3 checkpoints of 10 GiB, and 8 GiB of results), and 36.0 GiB "
        "are free. Make room there, or ask for keepCheckpoints 1, no keepEvery, an optimizer with 8 bits, exportDtype "
        "fp16 or the method lora; then retry the job."
    )
    DiskRoom(room.work, room.blobs, lambda: 1).check_job(NEED)


def test_two_disks_are_asked_each_for_its_part(tmp_path: Path, other_disk: Path) -> None:
    def room(work: int, blobs: int) -> DiskRoom:
        return DiskRoom(disk("working folder", tmp_path, work), disk("blobs", other_disk, blobs))

    room(10 * GIB, 30 * GIB).check_job(NEED)
    with pytest.raises(DiskFull, match="10 GiB on the disk of the working folder"):
        room(10 * GIB - 1, 30 * GIB).check_job(NEED)
    with pytest.raises(DiskFull, match="30 GiB on the disk of the blobs"):
        room(10 * GIB, 30 * GIB - 1).check_job(NEED)
    with pytest.raises(DiskFull, match="of the working folder"):
        DiskRoom(disk("working folder", tmp_path, 1), None).check_job(NEED)


def test_a_checkpoint_is_refused_where_it_has_no_room(tmp_path: Path) -> None:
    room = DiskRoom(disk("working folder", tmp_path, 5), disk("blobs", tmp_path, 5))
    room.check_checkpoint(5)
    with pytest.raises(DiskFull, match=r"6 bytes on the disk of the working folder, and 5 bytes are free\. Make room"):
        room.check_checkpoint(6)


def test_the_disks_are_those_of_the_settings(tmp_path: Path) -> None:
    here = Settings(data_folder=tmp_path, blobs=BlobSettings(url=f"file://{tmp_path}/blobs"))
    far = Settings(data_folder=tmp_path, blobs=BlobSettings(url="s3://bucket"))
    room = disk_room(here, tmp_path / "work")
    assert (room.work.folder, room.blobs and room.blobs.folder) == (tmp_path / "work", tmp_path / "blobs")
    assert disk_room(far, tmp_path).blobs is None
    room.check_job(DiskNeed(checkpoint=1, checkpoints=1, export=1))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", [str(one) for one in TrainingOptimizer])
def test_a_checkpoint_has_the_size_that_was_expected(name: str, ema: float) -> None:
    training = small.begin(name, ema_decay=ema)
    training.train(1)
    content = checkpoint_content(step=1, fingerprint="", owner="", state=training.state)
    trained = sum(one.numel() for one in parameters_of(training.groups).values())
    need = disk_need(recipe(optimizer=name, ema_decay=ema), trained=trained, weights=0, weight_files_bytes=0)
    assert content.size <= need.checkpoint * 1.1
    if name != TrainingOptimizer.ADAFACTOR:
        assert content.size >= need.checkpoint * 0.9
