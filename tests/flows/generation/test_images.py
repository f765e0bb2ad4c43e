"""A generation that succeeds is counted with its success."""

from __future__ import annotations

from uuid import uuid4

import pytest

from flows.generation.images import succeed
from storage.errors import JobLost
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import JobState
from storage.stores import Stores
from tests.storage.makers import a_bare_generation


def test_a_generation_is_counted_once_with_its_success(stores: Stores) -> None:
    job = a_bare_generation(stores.database)
    stores.database.run(jobs.claim(job.id, 1, uuid4()))
    with pytest.raises(JobLost):
        stores.database.run(succeed(job.id, 2, 7))
    assert stores.database.run(succeed(job.id, 1, 7)).state is JobState.SUCCEEDED
    with pytest.raises(JobLost):
        stores.database.run(succeed(job.id, 1, 7))
    counted = "select entity::text, entity_id, metric::text, amount from activity"
    assert stores.database.run(Query(counted, {}, list)) == [
        {"entity": "version", "entity_id": 7, "metric": "generation", "amount": 1}
    ]
