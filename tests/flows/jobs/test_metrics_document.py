"""The metrics of a job are read from the parts that attempts left, and from the one file of earlier releases."""

from __future__ import annotations

import pytest

from flows.jobs.kept_metrics import part_name, read_metrics
from flows.jobs.metrics_document import Point, merged, write_document
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFileRole
from storage.stores import Stores
from tests.storage.makers import a_job


def points(value: float, *steps: int) -> list[Point]:
    return [Point("loss", value, step, 1_000) for step in steps]


def test_a_step_in_two_parts_is_the_later_ones() -> None:
    parts = [write_document(points(1.0, 1, 2, 3)), write_document(points(2.0, 3, 4)), b""]
    assert merged(parts) == [*points(1.0, 1, 2), *points(2.0, 3, 4)]


def test_one_document_of_an_earlier_release_is_a_part_like_any_other() -> None:
    earlier = b'{"name":"loss","value":1.0,"step":1,"at":1000}\n{"name":"loss","value":null,"step":2,"at":1000}\n'
    assert merged([earlier]) == points(1.0, 1)
    assert merged([earlier, write_document(points(2.0, 2))]) == [*points(1.0, 1), *points(2.0, 2)]


def test_metrics_of_one_step_stay_in_the_order_in_which_they_were_measured() -> None:
    both = [Point("rate", 0.1, 2, 1), Point("loss", 0.2, 2, 1), Point("loss", 0.3, 1, 1)]
    assert [(one.name, one.step) for one in merged([write_document(both)])] == [("loss", 1), ("rate", 2), ("loss", 2)]


def test_a_lost_or_damaged_part_is_left_out_with_a_warning(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    job = a_job(stores.database)
    stores.database.run(jobs.claim(job.id, 1, None))
    for step in (1, 2, 3):
        blob = stores.blobs.put(write_document(points(0.5, step)))
        sha256 = "f" * 64 if step == 2 else blob.sha256
        put = {"name": part_name(step), "role": JobFileRole.METRICS, "media_type": "application/jsonl"}
        stores.database.run(job_files.put_file(job.id, 1, sha256=sha256, size=blob.size, **put))
    found = read_metrics(stores.blobs, stores.database.run(job_files.files(job.id)))
    assert [point.step for point in found] == [1, 3]
    assert f"the metrics in {part_name(2)} of job {job.id} are left out" in caplog.text
