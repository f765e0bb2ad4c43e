"""A disk that is too small is found out before it is full, with what is needed, what is free, and what to change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from flows.training import evaluation
from flows.training.checkpointing.room import DiskRoom, disk_room
from flows.training.checkpoints import checkpoint_content
from flows.training.methods.protocol import parameters_of
from flows.training.metrics.comparisons import UNRELATED_PROMPTS
from flows.training.metrics.validation import IMAGES
from flows.training.tracking.sample_images import sample_prompts
from storage.errors import DiskFull
from storage.free_space import Volume
from storage.records.accounts.quotas import GIB, in_units
from storage.records.jobs.choices import TrainingOptimizer
from storage.records.jobs.costs import disk as costs
from storage.records.jobs.costs.disk import checkpoint_bytes, estimate_disk
from storage.records.jobs.jobs import Checkpoint
from storage.records.jobs.sampled_sets import CLASS_IMAGES, SCENES, SEEDS_PER_SCENE
from storage.settings import BlobSettings, QuotaSettings, Settings
from tests.flows.training.optimizers import small
from tests.flows.training.tiny import recipe
from tests.storage.model_files import write_model
from tests.storage.records.jobs.costs.shapes import sd15

WANTED = recipe(steps=300, checkpoint_every=100, resolution=512, keep_checkpoints=2, token_learning_rate=0.0)
NEED = estimate_disk(sd15(), WANTED)
AFTER_DRAWING = NEED.peak - NEED.class_images


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


def test_one_disk_holds_checkpoints_results_and_images_at_once(tmp_path: Path) -> None:
    blobs = disk("blobs", tmp_path / "later", AFTER_DRAWING - 1)
    room = DiskRoom(WANTED, disk("working folder", tmp_path, 0), blobs)
    with pytest.raises(DiskFull) as refused:
        room.check_job(sd15())
    text = str(refused.value)
    assert f"needs {in_units(AFTER_DRAWING)} on the disk of the blobs, and {in_units(AFTER_DRAWING - 1)} are" in text
    assert "3 checkpoints of 9.6 GiB, 3.6 GiB of results" in text
    assert "Make room there and retry the job: it goes on from its last checkpoint. Another job would write" in text
    assert "keepCheckpoints: 1 (saves 9.6 GiB); optimizer: adamw_8bit (saves " in text

    def one_byte() -> list[Checkpoint]:
        row = Checkpoint(job_id=UUID(int=1), step=100, sha256="", size=1, created_at=datetime.now(UTC))
        return [row, msgspec.structs.replace(row, step=0, size=0)]

    assert DiskRoom(WANTED, room.work, blobs, one_byte).check_job(sd15()) != []


def test_less_than_the_floor_is_warned_of_and_class_images_count_only_there(tmp_path: Path) -> None:
    def warnings(free: int, floor: int = 0) -> list[str]:
        return DiskRoom(WANTED, disk("", tmp_path, 0), disk("blobs", tmp_path, free), floor=floor).check_job(sd15())

    assert warnings(NEED.peak) == []
    [warned] = warnings(NEED.peak - 1)
    assert warned.startswith(f"The job may need {in_units(NEED.peak)} on the disk of the blobs")
    assert warnings(NEED.peak + GIB, GIB) == []
    [warned] = warnings(NEED.peak + GIB - 1, GIB)
    assert "1 GiB are to stay free" in warned


def test_two_disks_are_asked_each_for_its_part(tmp_path: Path, other_disk: Path) -> None:
    in_work, in_store = NEED.in_work_folder, NEED.in_store - NEED.class_images

    def check(work: int, blobs: int) -> None:
        DiskRoom(WANTED, disk("working folder", tmp_path, work), disk("blobs", other_disk, blobs)).check_job(sd15())

    check(in_work, in_store)
    with pytest.raises(DiskFull, match="GiB on the disk of the working folder"):
        check(in_work - 1, in_store)
    with pytest.raises(DiskFull, match="GiB on the disk of the blobs"):
        check(in_work, in_store - 1)
    with pytest.raises(DiskFull, match="of the working folder"):
        DiskRoom(WANTED, disk("working folder", tmp_path, in_work - 1), None).check_job(sd15())


def test_a_checkpoint_is_refused_where_it_has_no_room(tmp_path: Path, other_disk: Path) -> None:
    room = DiskRoom(WANTED, disk("working folder", tmp_path, 5), disk("blobs", other_disk, 5))
    room.check_checkpoint(5)
    with pytest.raises(DiskFull) as refused:
        room.check_checkpoint(6)
    assert str(refused.value) == (
        "A checkpoint needs 6 bytes on the disk of the working folder, and 5 bytes are free. Make room there and retry "
        "the job: it goes on from its last checkpoint. Checkpoints of another job are smaller with "
        "optimizer: adamw_8bit; method: lora."
    )


def test_an_export_is_refused_where_it_has_no_room(tmp_path: Path) -> None:
    base = write_model(tmp_path / "model")
    DiskRoom(WANTED, disk("", tmp_path, 0), disk("blobs", tmp_path, 10 * 1024**2)).export_folder(base)
    with pytest.raises(DiskFull, match=r"The export needs .* on the disk of the blobs, and 9 bytes are free\. Make"):
        DiskRoom(WANTED, disk("", tmp_path, 0), disk("blobs", tmp_path, 9)).export_folder(base)


def test_an_export_that_is_tried_again_has_the_room_of_the_one_before(tmp_path: Path) -> None:
    class Small(Volume):
        def free(self) -> int:
            return 10 * 1024**2 - sum(file.stat().st_size for file in (tmp_path / "work").rglob("*") if file.is_file())

    base = write_model(tmp_path / "model")
    room = DiskRoom(WANTED, Small("working folder", tmp_path / "work"), Small("blobs", tmp_path / "blobs"))
    target = room.export_folder(base)
    assert target.parent == tmp_path / "work"
    (target / "folder").mkdir(parents=True)
    (target / "folder" / "half.safetensors").write_bytes(bytes(10 * 1024**2))
    assert room.export_folder(base) == target
    assert not target.exists(), "it may be half a file"


def test_the_disks_are_those_of_the_settings(tmp_path: Path) -> None:
    quotas = QuotaSettings(free_space_bytes=7)
    here = Settings(data_folder=tmp_path, blobs=BlobSettings(url=f"file://{tmp_path}/blobs"), quotas=quotas)
    far = Settings(data_folder=tmp_path, blobs=BlobSettings(url="s3://bucket"))
    room = disk_room(here, WANTED, tmp_path / "work")
    assert (room.work.folder, room.blobs and room.blobs.folder) == (tmp_path / "work", tmp_path / "blobs")
    assert room.floor == 7
    assert disk_room(far, WANTED, tmp_path).blobs is None
    disk_room(here, recipe(steps=1), tmp_path / "work").check_fit(write_model(tmp_path / "model"))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", [str(one) for one in TrainingOptimizer])
def test_no_checkpoint_is_larger_than_expected(name: str, ema: float, tmp_path: Path) -> None:
    training = small.begin(name, ema_decay=ema)
    training.train(1)
    file = tmp_path / "checkpoint"
    content = checkpoint_content(step=1, fingerprint="f" * 64, owner="o" * 36, state=training.state)
    content.write(file)
    shapes = {key: tuple(one.shape) for key, one in parameters_of(training.groups).items()}
    bound = checkpoint_bytes(shapes, recipe(optimizer=name, ema_decay=ema))
    assert file.stat().st_size <= bound
    # Beside headers, counters and tables, which are nothing beside gigabytes, it is what is written.
    assert content.size >= bound - 64 * 1024 - 5_000 * len(shapes)


def test_what_is_drawn_is_what_is_counted() -> None:
    scenes = ("in a forest", "on a table", "at night", "in snow", "on grass", "in a box", "a seventh")
    wanted = recipe(evaluation_scenes=scenes)
    drawn = evaluation.evaluation_recipe(wanted, evaluation.new_scenes(wanted, None, None))  # pyright: ignore[reportArgumentType]
    assert len(drawn.prompts) == SCENES * SEEDS_PER_SCENE + CLASS_IMAGES
    assert IMAGES + len(UNRELATED_PROMPTS) == costs.VALIDATION_IMAGES
    assert len(sample_prompts(wanted)) == costs.SAMPLES_AT_ONCE
