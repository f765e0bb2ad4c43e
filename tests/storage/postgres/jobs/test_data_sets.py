"""Data sets that jobs use."""

from __future__ import annotations

import pytest

from storage.errors import (
    InUse,
    NotFound,
)
from storage.postgres.connection import Database
from storage.postgres.jobs import data_sets, job_files, jobs
from storage.records.jobs.jobs import JobFileRole
from tests.storage.makers import a_job


def test_a_data_set_in_use_is_not_deleted(database: Database) -> None:
    job = a_job(database)
    assert job.data_set_id is not None
    with pytest.raises(InUse, match=str(job.id)):
        database.run(data_sets.delete(job.data_set_id, job.account_id))
    database.run(jobs.cancel(job.id, job.account_id))
    assert len(database.run(data_sets.delete(job.data_set_id, job.account_id))) == 2
    with pytest.raises(NotFound):
        database.run(data_sets.get(job.data_set_id, job.account_id))


def test_the_grids_that_show_its_photos_go_with_a_data_set(database: Database) -> None:
    job, other = a_job(database), a_job(database)
    for one in (job, other):
        database.run(jobs.claim(one.id, 1, None))
        for name, role in (("grid.png", JobFileRole.GRID), ("sample.png", JobFileRole.SAMPLE)):
            facts = {"sha256": name, "size": 1, "media_type": "image/png"}
            database.run(job_files.put_file(one.id, 1, name=name, role=role, **facts))
        database.run(jobs.succeed(one.id, 1, None))
    assert job.data_set_id is not None
    assert "grid.png" in database.run(data_sets.delete(job.data_set_id, job.account_id))
    left = [[file.name for file in database.run(job_files.files(one.id))] for one in (job, other)]
    assert left == [["sample.png"], ["grid.png", "sample.png"]]
