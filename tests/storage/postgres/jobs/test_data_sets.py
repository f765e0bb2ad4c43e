"""Data sets that jobs use."""

from __future__ import annotations

import pytest

from storage.errors import (
    InUse,
    NotFound,
)
from storage.postgres.connection import Database
from storage.postgres.jobs import data_sets, jobs
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
