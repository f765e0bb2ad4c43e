"""Prefect's Retry button goes on from the newest retry of a job, and never makes two of them work side by side."""

from __future__ import annotations

import resource
from uuid import UUID, uuid4

import pytest

from flows.jobs.claims import claimed_job, ended_well
from storage.errors import JobAlreadyRunning, JobCannotSucceed
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import Job, JobState
from storage.stores import Stores
from tests.storage.makers import a_job

RETRIES = "select * from jobs where retry_of = %(id)s"


@pytest.fixture
def failed(stores: Stores) -> Job:
    """A job that has failed in its first flow run."""
    job = a_job(stores.database)
    stores.database.run(jobs.claim(job.id, 1, None))
    return stores.database.run(jobs.fail(job.id, 1, "job_failed", "It broke."))


def press_retry(patch: pytest.MonkeyPatch, run_id: UUID, count: int) -> None:
    """Have this process be a flow run that Prefect runs again."""
    patch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(run_id))
    patch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(count))


def fails(stores: Stores, job: Job) -> Job:
    """What the flow run works on, which fails."""
    with claimed_job(stores, job.id, 1) as working:
        raise JobCannotSucceed("Still broken.")
    return stores.database.run(jobs.get(working.id))


def test_each_retry_goes_on_from_the_one_before(stores: Stores, failed: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = uuid4()
    press_retry(monkeypatch, run_id, 2)
    first = fails(stores, failed)
    press_retry(monkeypatch, run_id, 3)
    second = fails(stores, failed)
    assert (first.retry_of, second.retry_of) == (failed.id, first.id)
    assert (first.state, second.state) == (JobState.FAILED, JobState.FAILED)


def test_no_second_retry_begins_while_one_lives_and_none_after_it_succeeded(
    stores: Stores, failed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a process that died: the relay begins the retry's next attempt in another flow run."""
    press_retry(monkeypatch, uuid4(), 2)
    with claimed_job(stores, failed.id, 1) as elsewhere:
        press_retry(monkeypatch, uuid4(), 2)
        refused = pytest.raises(JobAlreadyRunning, match=f"{elsewhere.id}, a retry of job {failed.id}, is running")
        with refused, claimed_job(stores, failed.id, 1):
            pass
        assert ended_well(stores, failed.id) is None
        elsewhere.run(lambda: jobs.succeed(elsewhere.id, 1, None))
    assert elsewhere.outcome.is_completed(), elsewhere.outcome
    ended = ended_well(stores, failed.id)
    assert ended is not None
    assert f"Job {elsewhere.id}, a retry of job {failed.id}, has succeeded" in str(ended.message)
    assert len(stores.database.run(Query(RETRIES, {"id": failed.id}, list))) == 1


def test_a_retry_in_prefect_has_the_memory_limit_of_any_job(
    stores: Stores, failed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    stores.settings.jobs.memory_limit_bytes = 50_000_000_000
    press_retry(monkeypatch, uuid4(), 2)
    try:
        with claimed_job(stores, failed.id, 1) as job:
            limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert limit == 50_000_000_000  # more than the machine has
    assert job.outcome.is_completed()
