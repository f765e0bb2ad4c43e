"""Jobs of one process beside each other: their locks and heartbeats are shared, their ends are their own."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import pytest

from flows.jobs import job_group
from flows.jobs.job_group import JobGroup
from flows.jobs.job_locks import SharedLocks, lock_name
from flows.jobs.lifecycle import RunningJob
from storage.errors import CancellationRequested, JobLost, PostgresUnavailable
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs
from storage.postgres.locks import lock_number, try_lock
from storage.records.jobs.jobs import Job, JobState
from storage.stores import Stores
from tests.flows.jobs.test_lifecycle import cut, lock_holders, wait_until
from tests.storage.makers import a_job


def held(group: JobGroup, job: Job) -> RunningJob:
    """The job, claimed."""
    running = group.claim(job.id, job.attempt)
    assert running is not None
    return running


def row_of(stores: Stores, job: Job) -> Job:
    return stores.database.run(jobs.get(job.id))


def test_many_jobs_have_heartbeats_and_locks_on_one_connection(stores: Stores) -> None:
    submitted = [a_job(stores.database) for _ in range(5)]
    with JobGroup(stores) as group:
        claimed = [held(group, job) for job in submitted]
        assert len(set(lock_holders(stores))) == 1
        first = [row_of(stores, job).heartbeat_at for job in submitted]
        claimed[0].report("base", 3, 8)
        wait_until(
            lambda: all(row_of(stores, job).heartbeat_at != at for job, at in zip(submitted, first, strict=True))
        )
        wait_until(lambda: (progress := row_of(stores, submitted[0]).progress) is not None and progress.step == 3)
        assert group.claim(submitted[0].id, 1) is None, "this process holds it already"
        with stores.database.connect() as other:
            assert not try_lock(other, lock_name(submitted[1].id))
            with group.working_on(claimed[1]) as job:
                job.run(lambda: jobs.succeed(job.id, job.attempt, None))
            assert try_lock(other, lock_name(submitted[1].id))
    wait_until(lambda: lock_holders(stores) == [])


def test_locks_are_taken_again_and_a_job_that_another_process_took_is_lost_alone(stores: Stores) -> None:
    first, second = a_job(stores.database), a_job(stores.database)
    with JobGroup(stores) as group, stores.database.connect() as thief:
        running, other = held(group, first), held(group, second)
        [holder] = set(lock_holders(stores))
        cut(stores, holder)
        thief.execute("select pg_advisory_lock(%s)", (lock_number(lock_name(first.id)),))

        def is_lost() -> bool:
            return running.is_lost

        wait_until(is_lost)
        with pytest.raises(JobLost, match=str(first.id)):
            running.check()
        other.check()
        assert not try_lock(thief, lock_name(second.id))


def test_locks_are_all_taken_again_by_whichever_call_finds_postgres_back(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, first, stolen, later = SharedLocks(stores.database), uuid4(), uuid4(), uuid4()
    assert locks.take(first)
    assert locks.take(stolen)
    cut(stores, lock_holders(stores)[0])
    wait_until(lambda: not lock_holders(stores))
    with monkeypatch.context() as away:
        away.setattr(stores.database, "connect", refuse)
        with pytest.raises(PostgresUnavailable):
            locks.keep()
    with stores.database.connect() as other:
        assert try_lock(other, lock_name(stolen))
        assert locks.take(later), "it connects again, before `keep` does"
        assert not try_lock(other, lock_name(first))
        assert list(locks.keep()) == [stolen]
        assert not locks.keep(), "told once"
    locks.close()


def refuse() -> None:
    raise PostgresUnavailable("away")


def test_a_locked_row_holds_up_no_heartbeat_of_others(stores: Stores) -> None:
    stores.settings.jobs.heartbeat_seconds = 0.05
    submitted = sorted((a_job(stores.database) for _ in range(3)), key=lambda job: job.id)
    with JobGroup(stores) as group:
        claimed = [held(group, job) for job in submitted]
        with stores.database.connect() as other, other.transaction():
            other.execute("select from jobs where id = %s for update", (submitted[0].id,))
            before = [row_of(stores, job).heartbeat_at for job in submitted]
            wait_until(lambda: row_of(stores, submitted[1]).heartbeat_at != before[1], 2.0)
            wait_until(lambda: row_of(stores, submitted[2]).heartbeat_at != before[2], 2.0)
            assert row_of(stores, submitted[0]).heartbeat_at == before[0]
        wait_until(lambda: row_of(stores, submitted[0]).heartbeat_at != before[0])
        claimed[0].check()


def test_a_job_whose_lock_is_not_free_is_told_of(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    stores.settings.jobs.silent_after_seconds = 0.2
    job = a_job(stores.database)
    with JobGroup(stores) as group, stores.database.connect() as other:
        assert try_lock(other, lock_name(job.id))
        for _ in range(6):
            assert group.claim(job.id, 1) is None
            time.sleep(0.06)
    [record] = [one for one in caplog.records if "is not begun" in one.getMessage()]
    assert str(job.id) in record.getMessage()


def test_a_cancellation_and_a_lost_attempt_are_noticed_for_one_job(stores: Stores) -> None:
    cancelled, lost, going = (a_job(stores.database) for _ in range(3))
    with JobGroup(stores) as group:
        held_jobs = [held(group, job) for job in (cancelled, lost, going)]
        stores.database.run(jobs.cancel(cancelled.id, cancelled.account_id))
        stores.database.run(Query("update jobs set attempt = 7 where id = %(id)s returning id", {"id": lost.id}, len))
        with pytest.raises(CancellationRequested):
            while True:
                held_jobs[0].wait(0.02)
        wait_until(lambda: held_jobs[1].is_lost)
        held_jobs[2].check()


def test_a_thread_that_hangs_is_left_behind_and_its_job_fails_by_name(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_group, "GRACE_SECONDS", 0.2)
    stores.settings.jobs.stall_minutes = 0.3 / 60
    stuck, busy = a_job(stores.database), a_job(stores.database)
    release = threading.Event()
    with JobGroup(stores) as group:
        hung, working = held(group, stuck), held(group, busy)

        def hang() -> None:
            with pytest.raises(JobLost), group.working_on(hung):
                release.wait(30)
                hung.check()

        thread = threading.Thread(target=hang, daemon=True)
        thread.start()

        def is_failed() -> bool:
            working.check()  # the others get on
            return row_of(stores, stuck).state is JobState.FAILED

        wait_until(is_failed)
        assert row_of(stores, stuck).failure_code == "stalled"
        assert group.running == [busy.id]
        release.set()
        thread.join(10)
        working.check()


def test_a_thread_that_does_not_stop_has_its_job_released(stores: Stores) -> None:
    job = a_job(stores.database)
    with JobGroup(stores) as group:
        running = held(group, job)
        group.stop()
        group.abandon()
        row = row_of(stores, job)
        assert (row.state, row.attempt) == (JobState.SUBMITTED, 2)
        with pytest.raises(JobLost):
            running.check()
        again = group.claim(job.id, 2)
        assert again is not None
        running.stop()  # the old thread ends at last
        with stores.database.connect() as other:
            assert not try_lock(other, lock_name(job.id)), "the new attempt's lock is not the old one's to release"
