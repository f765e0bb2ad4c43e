"""What a training job really has on disks while it runs, beside the bound that is computed for it."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import msgspec
import pytest

from flows.jobs.lifecycle import RunningJob
from flows.training.work import TrainingWork
from storage.blobs.model_sizes import sizes_of_folder
from storage.blobs.walks import walk
from storage.free_space import volumes
from storage.postgres.catalog import catalog
from storage.records.jobs.costs.disk import estimate_disk
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingJobRequest
from storage.stores import Stores


class WrittenBytes:
    """Looks at the blob store and the work folder at every point that a job passes, and while both have a checkpoint
    that is being kept. Made when the photos and the base model are stored."""

    def __init__(self, stores: Stores, patch: pytest.MonkeyPatch) -> None:
        self._stores = stores
        [self._blobs] = [volume.folder for volume in volumes(stores.settings) if volume.name == "blobs"]
        self._work = stores.settings.data_folder / "work"
        self._before = set(_files(self._blobs))
        self._lock = threading.Lock()
        self.store = self.work = self.together = self.checkpoint = 0
        reach, keep = RunningJob.reach, TrainingWork.keep_metrics_part

        def reached(job: RunningJob, point: str) -> None:
            self.look()
            reach(job, point)

        def kept(work: TrainingWork, step: int) -> None:
            keep(work, step)
            self.look()

        patch.setattr(RunningJob, "reach", reached)
        patch.setattr(TrainingWork, "keep_metrics_part", kept)

    def look(self) -> None:
        """Note what is there now. A file under two names takes its room once."""
        with self._lock:
            work = _files(self._work)
            store = {inode: size for inode, (size, _) in _files(self._blobs).items() if inode not in self._before}
            checkpoints = [size for size, path in work.values() if path.name.startswith("checkpoint-")]
            self.store = max(self.store, sum(store.values()))
            self.work = max(self.work, sum(size for size, _ in work.values()))
            self.together = max(
                self.together, sum((store | {inode: size for inode, (size, _) in work.items()}).values())
            )
            self.checkpoint = max(self.checkpoint, *checkpoints, 0)

    def assert_within_the_bound(self, job: Job, base: Path) -> None:
        """None of it is more than was computed, and checkpoints and results are no less than a third:
        of a tiny model much is headers."""
        recipe = msgspec.convert(job.request, TrainingJobRequest).recipe
        need = estimate_disk(sizes_of_folder(base), recipe)
        assert 0 < self.store <= need.in_store
        assert 0 < self.work <= need.in_work_folder
        assert self.together <= need.peak
        assert self.checkpoint <= need.checkpoint <= 3 * self.checkpoint
        version = self._stores.database.run(catalog.version_of_job(job.id))
        assert version is not None
        files = {file.sha256: file.size for file in self._stores.database.run(catalog.files(version.id))}
        known = {path.name for _, path in self._before_files()}
        added = sum(size for sha256, size in files.items() if sha256 not in known)
        assert added <= need.export <= 3 * added + 2**18

    def _before_files(self) -> list[tuple[int, Path]]:
        return [(size, path) for inode, (size, path) in _files(self._blobs).items() if inode in self._before]


def _files(folder: Path) -> dict[int, tuple[int, Path]]:
    """Size and path of each file below a folder, by its inode."""
    return {facts.st_ino: (facts.st_size, path) for path, facts in walk(folder) if stat.S_ISREG(facts.st_mode)}
