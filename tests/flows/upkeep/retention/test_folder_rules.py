"""Folders: of jobs that ended, of models that nothing uses."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.generation.images import generate_images
from flows.upkeep.retention import sweep as sweeping
from flows.upkeep.retention.folder_rules import ENCODINGS_OF_NO_PHOTO, folders_to_oneself
from flows.upkeep.retention.retention import apply, tidy_folders
from flows.upkeep.retention.retention_rules import RULES
from storage.blobs.cached_files import CachedFiles
from storage.postgres.accounts import accounts
from storage.postgres.jobs import data_sets, jobs
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.jobs import JobState
from storage.settings import MIB, RetentionSettings
from storage.stores import Stores
from tests.files import unused_for
from tests.flows.upkeep.retention.test_retention import DAY, events, size
from tests.storage.blobs.test_walks import churned
from tests.storage.makers import a_bare_generation, a_job


def test_working_folders_of_jobs_that_ended_go_and_those_of_others_stay(stores: Stores) -> None:
    waits, work = a_job(stores.database), stores.settings.data_folder / "work"
    ended = a_job(stores.database)
    stores.database.run(jobs.cancel(ended.id, ended.account_id))
    names = {"waits": str(waits.id), "ended": str(ended.id), "unknown": str(uuid4()), "young": str(uuid4())}
    for what, name in names.items():
        (work / name).mkdir(parents=True)
        (work / name / "state").write_bytes(b"x" * 100)
        for path in (work / name / "state", work / name):
            if what != "young":
                unused_for(path, 8 * 86400)
    [rule] = [rule for rule in RULES if rule.folders == ("work",)]
    report = apply(stores, [rule])
    assert (report.count, report.size) == (2, 200)
    assert {path.name for path in work.iterdir()} == {names["waits"], names["young"]}


def a_leftover(stores: Stores) -> Path:
    """The working folder of a job that nobody knows, long after its flow died."""
    folder = stores.settings.data_folder / "work" / str(uuid4())
    folder.mkdir(parents=True)
    unused_for(folder, 8 * 86400)
    return folder


def test_where_jobs_end_the_folders_of_that_machine_are_tidied_once_an_hour_and_no_row_is_touched(
    stores: Stores,
) -> None:
    events(stores, 3, 40 * DAY)
    first, lock = a_leftover(stores), stores.settings.data_folder / "run" / "folder-rules.lock"
    tidy_folders(stores)
    assert not first.exists()
    assert size(stores, "outbox") == 3

    second = a_leftover(stores)
    tidy_folders(stores)
    assert second.exists(), "it was done this hour"
    unused_for(lock, 3601)
    tidy_folders(stores)
    assert not second.exists()


def test_two_processes_of_one_machine_do_not_tidy_at_once(stores: Stores) -> None:
    left = a_leftover(stores)
    with folders_to_oneself(stores.settings.data_folder) as first:
        assert first
        tidy_folders(stores)
        with folders_to_oneself(stores.settings.data_folder) as second:
            assert not second
    assert left.exists()


def test_a_job_that_has_ended_does_not_fail_for_folders_that_cannot_be_tidied(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = a_leftover(stores)
    monkeypatch.setattr(sweeping, "CLOCKS_APART", timedelta(seconds=-1))
    tidy_folders(stores)
    assert left.exists()


def test_a_generation_that_ends_tidies_its_machine(
    stores: Stores, environment: dict[str, str], prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_GENERATION__LINGER_SECONDS", "0")
    job = a_bare_generation(stores.database)
    left = a_leftover(stores)

    generate_images()

    assert stores.database.run(jobs.get(job.id)).state is JobState.FAILED
    assert not left.exists()


def test_a_job_that_writes_and_deletes_in_its_folder_meanwhile_is_no_fault(stores: Stores) -> None:
    job, work = a_job(stores.database), stores.settings.data_folder / "work"
    rules = [rule for rule in RULES if rule.folders == ("work",)]
    with churned(work / str(job.id)), churned(work / "of-no-job"):
        for _ in range(30):
            assert apply(stores, rules).faults == []
    assert (work / "of-no-job").exists()


def a_copy(stores: Stores, name: str, mebibytes: int, idle: float) -> Path:
    """A folder of the cache that was used so many seconds ago."""
    folder = stores.cache_folder / "base-models" / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"\0" * mebibytes * 1024**2)
    unused_for(folder, idle)
    return folder


def test_copies_of_models_go_by_size_the_longest_unused_first_and_never_one_in_use(stores: Stores) -> None:
    [rule] = [rule for rule in RULES if "cache/base-models" in rule.folders]
    copies = {name: a_copy(stores, name, 3, idle) for name, idle in (("used", 900), ("old", 800), ("a", 20), ("b", 10))}
    stores.settings.retention = RetentionSettings(base_model_cache_gib=7 / 1024)
    with use_of(copies["used"]):
        report = apply(stores, [rule])
    assert {name for name, folder in copies.items() if folder.exists()} == {"used", "b"}
    assert (report.count, report.size) == (2, 6 * 1024**2)
    stores.settings.retention = RetentionSettings()
    assert apply(stores, [rule]).count == 0


@contextmanager
def use_of(folder: Path) -> Iterator[None]:
    """Use a folder of the cache as a flow does."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield
    os.close(descriptor)


def test_latents_go_with_their_photo_and_others_by_size(stores: Stores) -> None:
    [rule] = [rule for rule in RULES if "cache/encodings" in rule.folders]
    account = stores.database.run(accounts.ensure_account("owner")).id
    image = DataSetImage(position=0, name="a.png", sha256="a" * 64, size=9, width=9, height=9)
    data_set = stores.database.run(data_sets.create(account, "photos", [image]))
    place = stores.cache_folder / "encodings"
    # A release before had captions in `shared`, those of photos that are gone among them.
    for number, source in enumerate(("a" * 64, "b" * 64, ENCODINGS_OF_NO_PHOTO, ENCODINGS_OF_NO_PHOTO, "shared")):
        CachedFiles(place).write(f"{source}/{number}", bytes(MIB))
        unused_for(place / source / str(number), 100 - number)

    def left() -> set[str]:
        return {f"{path.parent.name[0]}{path.name}" for path in place.rglob("*") if path.is_file()}

    assert apply(stores, [rule]).count == 2
    assert left() == {"a0", "o2", "o3"}, (
        "that of a photo which no data set has is gone, and what nobody knows the owner of"
    )
    stores.settings.retention = RetentionSettings(encoding_cache_gib=2.5 / 1024)
    assert apply(stores, [rule]).rows()[0]["note"] == "0.00 GiB kept"
    assert left() == {"o2", "o3"}, "the one that was used longest ago is gone"
    CachedFiles(place).write(f"{'a' * 64}/9", b"x")
    stores.database.run(data_sets.delete(data_set.id, account))
    apply(stores, [rule])
    assert left() == {"o2", "o3"}


def test_old_kernels_go_and_one_of_triton_as_a_whole(stores: Stores) -> None:
    compiled, old = stores.cache_folder / "compiled", 31 * 86400
    files = {
        "torch/ab/old.so": old,
        "torch/ab/young.so": 0,
        "triton/OLD/kernel.cubin": old,
        "triton/OLD/kernel.json": old,
        "triton/HALF/kernel.cubin": old,
        "triton/HALF/kernel.json": old - 2 * 86400,
    }
    for name, idle in files.items():
        (compiled / name).parent.mkdir(parents=True, exist_ok=True)
        (compiled / name).write_bytes(b"x" * 10)
        unused_for(compiled / name, idle)
    for kernel in ("OLD", "HALF"):
        unused_for(compiled / "triton" / kernel, old)
    [rule] = [rule for rule in RULES if rule.folders == ("cache/compiled",)]
    report = apply(stores, [rule])
    assert (report.count, report.size, report.faults) == (2, 30, [])
    left = {str(path.relative_to(compiled)) for path in compiled.rglob("*") if path.is_file()}
    assert left == {"torch/ab/young.so", "triton/HALF/kernel.cubin", "triton/HALF/kernel.json"}
