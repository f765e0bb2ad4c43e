"""A job's checkpoints in the blob store and their rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flows.jobs.lifecycle import RunningJob
from flows.upkeep.blob_sweep import drop_unnamed
from storage.errors import BlobCorrupted, BlobMissing
from storage.postgres.jobs import job_files
from storage.records.jobs.jobs import Checkpoint

log = logging.getLogger("darkroom.checkpoints")


class JobCheckpoints:
    """The checkpoint store of one running job, which keeps the newest `kept`, and those of each step that is a multiple
    of `every` (0: none) also when the job has ended. `before_keeping` runs before a checkpoint
    is recorded: what it does (the metrics up to that step) is never behind the checkpoint that a later attempt starts
    from."""

    def __init__(
        self, job: RunningJob, work_folder: Path, before_keeping: Callable[[int], None], kept: int, every: int = 0
    ) -> None:
        self._job, self._work_folder, self._before_keeping = job, work_folder, before_keeping
        self._kept, self._every = kept, every
        self._resumed: Path | None = None
        self._forgotten: list[str] = []
        """Hashes of checkpoints without a row whose bytes may still be there."""

    @property
    def owner(self) -> str:
        """The job. Its name stands in its checkpoints: no other job puts the same bytes, so old ones may go at once."""
        return str(self._job.id)

    def stored(self) -> list[Checkpoint]:
        """The job's checkpoints in the store, the newest first."""
        return self._job.run(lambda: job_files.checkpoints(self._job.id))

    def latest(self) -> tuple[int, Path] | None:
        """The newest checkpoint whose bytes are whole; a damaged one is forgotten, and the one before is used.

        A retry that has none before uses that of the job that it retries."""
        while rows := self.stored():
            row = rows[0]
            target = self._work_folder / f"resume-{row.step}.safetensors"
            try:
                self._job.with_retries(lambda row=row, target=target: self._job.stores.blobs.lend(row.sha256, target))
            except (BlobMissing, BlobCorrupted) as error:
                log.warning("job %s: checkpoint %d is dropped: %s", self._job.id, row.step, error)
                # The step that is made again has the same bytes, and must not find these under their name. So they go
                # first: rows whose bytes are gone are found here again, bytes without rows are not. Also beside a
                # backup, which takes no damaged bytes.
                self._job.with_retries(lambda row=row: self._job.stores.blobs.delete(row.sha256))
                self._job.run(lambda row=row: job_files.drop_damaged(row.sha256))
                continue
            self._resumed = target
            return row.step, target
        return None

    def release_resumed(self) -> None:
        """Remove the file that `latest` returned, once it was read: on another disk than the store's it is a copy, and
        takes the room of the next checkpoint."""
        if self._resumed is not None:
            self._resumed.unlink(missing_ok=True)
            self._resumed = None

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Bytes, then the row, then the oldest ones go. Raises JobLost, DiskFull, StoreUnavailable.

        On the store's own disk the file is linked and not copied, and its hash is taken as it was written.
        """
        job = self._job
        blob = job.with_retries(lambda: job.stores.blobs.put_hashed(file, sha256))
        self._before_keeping(step)
        job.run(lambda: job_files.put_checkpoint(job.id, job.attempt, step, blob.sha256, blob.size))
        job.with_retries(lambda: self.prune(self._kept))

    def prune(self, keep: int) -> None:
        """Forget all but the newest `keep` checkpoints and those that stay, and delete bytes that nothing else names.

        Bytes that stay because a sweep or a backup is at work, or because the store fails, go with the next call. Works
        for an ended job too. Raises StoreUnavailable.
        """
        stores = self._job.stores
        self._forgotten += stores.database.run(job_files.prune_checkpoints(self._job.id, keep, self._every))
        deleted = set(drop_unnamed(stores, self._forgotten))
        left = [sha256 for sha256 in self._forgotten if sha256 not in deleted]
        self._forgotten = [sha256 for sha256 in left if stores.blobs.exists(sha256)]
