"""A job's checkpoints in the stores: linked and not copied, the newest few, and never one that is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

import pytest

from flows.jobs.lifecycle import RunningJob, running_job
from flows.training.job_checkpoints import JobCheckpoints
from flows.upkeep.blob_sweep import faulty_blobs
from storage.errors import BlobCorrupted, StoreUnavailable, TrainingDiverged
from storage.postgres.jobs import job_files, jobs, submissions
from storage.postgres.locks import BLOB_SWEEP
from storage.stores import Stores
from tests.storage.makers import a_job


def blob_of(stores: Stores, sha256: str) -> Path:
    return Path(stores.settings.blobs.url.removeprefix("file://")) / sha256[:2] / sha256


def keep(checkpoints: JobCheckpoints, running: RunningJob, folder: Path, step: int) -> str:
    """Keep a checkpoint as a fit does; returns its hash."""
    file = folder / f"checkpoint-{step}"
    file.write_bytes(f"{running.id}, step {step}".encode())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    inode = file.stat().st_ino
    checkpoints.keep(step, file, sha256)
    file.unlink()
    assert blob_of(running.stores, sha256).stat().st_ino == inode, "it was copied"
    return sha256


def unavailable(sha256: str) -> NoReturn:
    raise StoreUnavailable("the blob store does not answer")


def test_the_newest_checkpoints_are_kept_and_a_damaged_one_is_passed_over(stores: Stores, tmp_path: Path) -> None:
    job, measured = a_job(stores.database), list[int]()
    with running_job(stores, job.id, 1) as running:
        checkpoints = JobCheckpoints(running, tmp_path, measured.append, kept=3)
        assert checkpoints.latest() is None
        hashes = [keep(checkpoints, running, tmp_path, step) for step in (1, 2, 3, 4)]
        rows = stores.database.run(job_files.checkpoints(job.id))
        assert [(row.step, row.sha256) for row in rows] == [(4, hashes[3]), (3, hashes[2]), (2, hashes[1])]
        assert measured == [1, 2, 3, 4]
        assert not blob_of(stores, hashes[0]).exists()
        damaged = blob_of(stores, hashes[3])
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"5")
        with pytest.raises(BlobCorrupted):
            stores.blobs.read(hashes[3])
        newest = checkpoints.latest()
        assert newest is not None
        assert (newest[0], newest[1].read_bytes()) == (3, f"{job.id}, step 3".encode())
        assert [row.step for row in stores.database.run(job_files.checkpoints(job.id))] == [3, 2]
        assert newest[1].stat().st_ino == blob_of(stores, hashes[2]).stat().st_ino, "it was copied"
        checkpoints.release_resumed()
        assert not newest[1].exists(), "on another disk a copy of gigabytes would stay"
        assert blob_of(stores, hashes[2]).exists()
        checkpoints.release_resumed()
        keep(checkpoints, running, tmp_path, 4)
        checkpoints.prune(0)
        assert stores.database.run(job_files.checkpoints(job.id)) == []
        staying = JobCheckpoints(running, tmp_path, measured.append, kept=1, every=3)
        for step in range(5, 11):
            keep(staying, running, tmp_path, step)
        assert [row.step for row in stores.database.run(job_files.checkpoints(job.id))] == [10, 9, 6]
        staying.prune(0)
        assert [row.step for row in stores.database.run(job_files.checkpoints(job.id))] == [9, 6]
        running.run(lambda: jobs.succeed(job.id, 1, None))
    # An assertion that failed in the block has ended the job, and no more.
    assert running.outcome.is_completed(), running.outcome.message


def test_a_damaged_checkpoint_is_forgotten_by_every_job_that_names_it(stores: Stores, tmp_path: Path) -> None:
    """A retry begins at a checkpoint of the job that it retries, and both name its bytes."""
    job, settings = a_job(stores.database), stores.settings
    with running_job(stores, job.id, 1) as running:
        checkpoints = JobCheckpoints(running, tmp_path, lambda step: None, kept=3)
        hashes = [keep(checkpoints, running, tmp_path, step) for step in (1, 2, 3)]
        raise TrainingDiverged("the first job fails")
    owner = job.account_id
    retry, other = (stores.database.run(submissions.retry(job.id, owner, settings))[0] for _ in range(2))
    blob_of(stores, hashes[2]).write_bytes(b"damaged")
    with running_job(stores, retry.id, 1) as running:
        newest = JobCheckpoints(running, tmp_path, lambda step: None, kept=3).latest()
        assert newest is not None
        assert (newest[0], newest[1].read_bytes()) == (2, f"{job.id}, step 2".encode())
        running.run(lambda: jobs.succeed(retry.id, 1, None))
    assert running.outcome.is_completed(), running.outcome.message
    kept = [[row.step for row in stores.database.run(job_files.checkpoints(one.id))] for one in (job, retry, other)]
    assert kept == [[2, 1], [2], [2]]
    assert not [fault for fault in faulty_blobs(stores) if "checkpoint" in fault]
    for sha256 in hashes[:2]:
        blob_of(stores, sha256).unlink()
    with running_job(stores, other.id, 1) as running:
        assert JobCheckpoints(running, tmp_path, lambda step: None, kept=3).latest() is None
    assert not [fault for fault in faulty_blobs(stores) if "checkpoint" in fault]


def test_beside_a_backup_old_checkpoints_wait_for_its_end_and_damaged_ones_go(stores: Stores, tmp_path: Path) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        checkpoints = JobCheckpoints(running, tmp_path, lambda step: None, kept=1)
        with stores.database.session_lock(BLOB_SWEEP) as held:
            assert held
            hashes = [keep(checkpoints, running, tmp_path, step) for step in (1, 2, 3)]
            assert [row.step for row in checkpoints.stored()] == [3]
            assert all(stores.blobs.exists(sha256) for sha256 in hashes)
            blob_of(stores, hashes[2]).write_bytes(b"damaged")
            assert checkpoints.latest() is None
            assert keep(checkpoints, running, tmp_path, 3) == hashes[2]
            assert stores.blobs.read(hashes[2]) == f"{job.id}, step 3".encode()
        hashes.append(keep(checkpoints, running, tmp_path, 4))
        assert [stores.blobs.exists(sha256) for sha256 in hashes] == [False, False, False, True]
        running.run(lambda: jobs.succeed(job.id, 1, None))
    assert running.outcome.is_completed(), running.outcome.message


def test_what_a_failed_prune_left_goes_with_the_next(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        checkpoints = JobCheckpoints(running, tmp_path, lambda step: None, kept=2)
        hashes = [keep(checkpoints, running, tmp_path, step) for step in (1, 2)]
        with monkeypatch.context() as patched, pytest.raises(StoreUnavailable):
            patched.setattr(stores.blobs, "removing", unavailable)
            checkpoints.prune(1)
        assert stores.blobs.exists(hashes[0])
        checkpoints.prune(1)
        assert [stores.blobs.exists(sha256) for sha256 in hashes] == [False, True]
        running.run(lambda: jobs.succeed(job.id, 1, None))
    assert running.outcome.is_completed(), running.outcome.message
