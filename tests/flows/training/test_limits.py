"""Memory and disk that run out during the fit, and a loss that is no number, are named errors; what was kept before
stays good."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.local.seed import STARTER_FOLDER
from flows.training.dreambooth import train_dreambooth
from storage.postgres.jobs import job_files, jobs, submissions
from storage.records.jobs.jobs import Job, JobState
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.training.test_callbacks import spoil_loss
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    FLOW,
    end_of,
    environment,
    run_elsewhere,
    settings,
    submit,
    weights_of,
)

MIB = 1024 * 1024
# Room for the model, its optimizer and the stores, but not for the activations of the batch.
LIMITED = f"""
import os
import flows.training.dreambooth_steps
used = next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('RssAnon'))
os.environ['DARKROOM_JOBS__MEMORY_LIMIT_BYTES'] = str(used + {250 * MIB})
"""


def killed_after_a_checkpoint(stores: Stores, job: Job, variables: dict[str, str]) -> int:
    """Run a job's first attempt until it dies after its first checkpoint; returns the number of the next."""
    assert run_elsewhere(job, 1, variables).returncode < 0
    stores.database.run(jobs.sweep_silent(silent_after_seconds=0.0, max_silent_attempts=9))
    assert stores.database.run(job_files.checkpoints(job.id))
    return end_of(stores, job.id).attempt


def assert_failed_with_good_checkpoints(stores: Stores, job: Job, code: str) -> None:
    row = end_of(stores, job.id)
    assert (row.state, row.failure_code) == (JobState.FAILED, code), row.failure_reason
    assert "retry" in (row.failure_reason or "")
    for checkpoint in stores.database.run(job_files.checkpoints(job.id)):
        stores.blobs.read(checkpoint.sha256)


def test_memory_that_runs_out_fails_the_job_with_that_reason(
    stores: Stores,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],  # noqa: F811
) -> None:
    wanted = {"steps": 4, "checkpoint_every": 1, "sample_every": 99, "batch_size": 24, "prior_loss_weight": 0.0}
    job = submit(stores, STARTER_FOLDER, **wanted)
    second = killed_after_a_checkpoint(stores, job, environment(**{"fit:3": f"die:{tmp_path / 'three'}"}))
    limited = run_elsewhere(job, second, environment(), program=LIMITED + FLOW)
    assert limited.returncode >= 0, "it was killed"
    assert_failed_with_good_checkpoints(stores, job, "out_of_memory")


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[Path]:  # noqa: F811
    """A blob store on a file system of 64 MiB."""
    folder = settings.data_folder / "blobs"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root: run this test as root, or in a container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_fails_the_job_and_a_retry_goes_on_from_its_checkpoint(
    small_disk: Path,
    stores: Stores,
    tiny_model: Path,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],  # noqa: F811
) -> None:
    straight = submit(stores, tiny_model)
    assert train_dreambooth(straight.id, 1, return_state=True).is_completed()
    job = submit(stores, tiny_model)
    second = killed_after_a_checkpoint(stores, job, environment(**{"fit:5": f"die:{tmp_path / 'five'}"}))
    # The one of step 4 was begun, so the one of step 2 is whole; it may be, too.
    newest, *_ = (checkpoint.step for checkpoint in stores.database.run(job_files.checkpoints(job.id)))
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(MIB // 16))
    assert train_dreambooth(job.id, second, return_state=True).is_failed()
    assert_failed_with_good_checkpoints(stores, job, "disk_full")
    filler.unlink()
    retry, _ = stores.database.run(submissions.retry(job.id, job.account_id, stores.settings))
    assert [checkpoint.step for checkpoint in stores.database.run(job_files.checkpoints(retry.id))] == [newest]
    assert train_dreambooth(retry.id, 1, return_state=True).is_completed()
    assert weights_of(stores, retry.id) == weights_of(stores, straight.id)


@pytest.mark.usefixtures("environment")
def test_a_loss_that_is_no_number_fails_the_job_and_spares_its_checkpoints(
    stores: Stores, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, 3, float("nan"))
    job = submit(stores, tiny_model, prior_loss_weight=0.0)
    assert train_dreambooth(job.id, 1, return_state=True).is_failed()
    row = end_of(stores, job.id)
    assert (row.state, row.failure_code) == (JobState.FAILED, "training_diverged"), row.failure_reason
    said = "Step 4: the loss is nan. Nothing of this step was kept; its checkpoint of step 2 stays. Ask for a lower "
    assert (row.failure_reason or "").startswith(said)
    [checkpoint] = stores.database.run(job_files.checkpoints(job.id))
    assert checkpoint.step == 2
    stores.blobs.read(checkpoint.sha256)
