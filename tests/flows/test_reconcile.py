"""Stores agree, and we know when they do not: each planted difference is reported by name, the safe ones repaired."""

from __future__ import annotations

import os
from uuid import uuid4

from flows.reconcile import check_invariants, reconcile_blobs
from storage.postgres import catalog, jobs, uploads
from storage.postgres.connection import Query
from storage.records.catalog import FileRole, NewFile, NewVersion
from storage.records.jobs import Job
from storage.records.uploads import DataSetImage
from storage.stores import Stores
from tests.storage.makers import a_job, an_account


def put_old(stores: Stores, content: bytes) -> str:
    """A blob that has lain there for years."""
    sha256 = stores.blobs.put(content).sha256
    os.utime(stores.settings.data_folder / "blobs" / sha256[:2] / sha256, (0, 0))
    return sha256


def named_by_a_data_set(stores: Stores, sha256: str) -> None:
    image = DataSetImage(position=0, name="a.png", sha256=sha256, size=3, width=64, height=64)
    stores.database.run(uploads.create(an_account(stores.database), "photos", [image]))


def a_published_job(stores: Stores) -> Job:
    job = a_job(stores.database)
    execute(stores, "delete from data_set_images")
    stores.database.run(jobs.claim(job.id, 1, uuid4()))
    weights = stores.blobs.put(b"weights")
    file = NewFile(path="w.safetensors", role=FileRole.WEIGHTS, sha256=weights.sha256, size=weights.size)
    new = NewVersion(
        model_name="m", base_model="starter", trained_words=("sks",), recipe={}, evaluation=None, files=(file,)
    )
    stores.database.run(catalog.publish(job.id, 1, new))
    return stores.database.run(jobs.get(job.id))


def execute(stores: Stores, statement: str) -> None:
    stores.database.run(Query(statement, {}, len))


def test_bytes_that_no_row_names_are_deleted_once_they_are_old(stores: Stores) -> None:
    orphans = {put_old(stores, b"one"), put_old(stores, b"two"), put_old(stores, b"three")}
    young = stores.blobs.put(b"an upload that has no row yet").sha256
    named = put_old(stores, b"a photo")
    named_by_a_data_set(stores, named)
    findings = reconcile_blobs(stores)
    assert {finding.split()[1] for finding in findings} == orphans
    assert {blob.sha256 for blob in stores.blobs.list()} == {young, named}
    assert reconcile_blobs(stores) == []


def test_rows_whose_bytes_are_gone_are_reported_and_kept(stores: Stores) -> None:
    named_by_a_data_set(stores, "f" * 64)
    [finding] = reconcile_blobs(stores)
    assert finding == f"blob {'f' * 64} is named by a row but gone"
    assert reconcile_blobs(stores) == [finding]


def test_a_healthy_system_has_nothing_to_report(stores: Stores) -> None:
    a_published_job(stores)
    assert check_invariants(stores) == []
    assert reconcile_blobs(stores) == []


def test_every_broken_invariant_is_said_in_a_sentence(stores: Stores) -> None:
    job = a_published_job(stores)
    breaks = {
        "update outbox set created_at = now() - interval '1 hour'": "still has had no effect",
        "delete from outbox where kind = 'job.succeeded'": f"job {job.id} ended without an event",
        "delete from outbox where kind = 'model_version.published'": "was published without an event",
        "delete from version_files": "has no weights file",
        "insert into sort_keys (list, k1, k2, item_id) values ('newest', 1, 0, 1)": "does not stand in the lists",
    }
    for statement, sentence in breaks.items():
        before = check_invariants(stores)
        execute(stores, statement)
        assert any(sentence in fault for fault in set(check_invariants(stores)) - set(before)), sentence
    silent = a_job(stores.database)
    stores.database.run(jobs.claim(silent.id, 1, uuid4()))
    execute(stores, "update jobs set heartbeat_at = now() - interval '1 hour' where state = 'running'")
    assert f"job {silent.id} is silent and was not handed out again" in check_invariants(stores)
