"""A job around a flow run ends by how its work ends, and only its own attempt may write."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.jobs.failures import named_failure
from flows.jobs.job_locks import lock_name
from flows.jobs.lifecycle import RunningJob, running_job
from storage.errors import CancellationRequested, JobAlreadyRunning, JobCannotSucceed, JobLost, WeightsRefused
from storage.postgres.connection import Query
from storage.postgres.jobs import job_files, jobs
from storage.postgres.locks import lock_number
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.stores import Stores
from tests.storage.makers import a_job


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_a_heart_beats_and_carries_progress(stores: Stores) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        first = stores.database.run(jobs.get(job.id)).heartbeat_at
        running.report("fit", 3, 8)
        wait_until(lambda: stores.database.run(jobs.get(job.id)).heartbeat_at != first)
        row = stores.database.run(jobs.get(job.id))
        assert row.state is JobState.RUNNING
        assert row.progress is not None
        assert (row.progress.phase, row.progress.step, row.progress.total) == ("fit", 3, 8)
        running.run(lambda: jobs.succeed(job.id, 1, None))
    assert running.outcome.is_completed()


def caused_by(error: Exception, cause: Exception) -> Exception:
    """An error that another one led to."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobCannotSucceed("no photo of it"), "job_failed"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "out_of_memory"),
        (RuntimeError("can't start new thread"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (caused_by(ValueError("a figure is missing"), MemoryError()), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (ZeroDivisionError("a secret detail"), "job_failed"),
    ],
)
def test_an_error_ends_the_job_with_a_named_reason(stores: Stores, error: Exception, code: str) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        raise error
    row = stores.database.run(jobs.get(job.id))
    assert (row.state, row.failure_code) == (JobState.FAILED, code)
    assert "secret detail" not in (row.failure_reason or "")
    assert running.outcome.is_failed()


def test_a_cancelled_job_stops_at_its_next_check(stores: Stores) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        stores.database.run(jobs.cancel(job.id, job.account_id))
        for _ in range(500):
            running.check()
            time.sleep(0.02)
        pytest.fail("was not told to stop")
    assert stores.database.run(jobs.get(job.id)).state is JobState.CANCELLED
    assert running.outcome.is_cancelled()


def test_a_cancelled_job_may_still_store_what_it_has_reached(stores: Stores) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        stores.database.run(jobs.cancel(job.id, job.account_id))

        def is_to_stop() -> bool:
            try:
                running.check()
            except CancellationRequested:
                return True
            return False

        wait_until(is_to_stop)
        with running.past_cancellation():
            stored = running.run(lambda: jobs.get(job.id))
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(is_to_stop).result(), "another thread stores nothing, and is to stop"
        running.run(lambda: jobs.get(job.id))
        pytest.fail("went on after it had stored that")
    assert stored.id == job.id
    assert stores.database.run(jobs.get(job.id)).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("error", "phase", "words", "none_of"),
    [
        (MemoryError(), "fit", ("phase 'fit'", "batchSize", "MEMORY_LIMIT_BYTES"), "GPU"),
        (MemoryError(), "evaluate", ("phase 'evaluate'", "MEMORY_LIMIT_BYTES"), "batchSize"),
        (MemoryError(), "load", ("phase 'load'", "MEMORY_LIMIT_BYTES"), "batchSize"),
        (MemoryError(), "encode", ("phase 'encode'", "MEMORY_LIMIT_BYTES"), "batchSize"),
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), "setup", ("phase 'setup'", "card"), "batchSize"),
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), "fit", ("The GPU", "batchSize", "card"), "MEMORY_LIMIT"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "fit", ("The GPU", "batchSize"), "MEMORY_LIMIT"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "fit", ("The GPU", "batchSize"), "MEMORY_LIMIT"),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "encode", ("The GPU", "card"), "batch"),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), "load", ("The flow's process",), "GPU"),
    ],
)
def test_memory_that_runs_out_says_what_helps_where_it_happened(
    error: Exception, phase: str, words: tuple[str, ...], none_of: str
) -> None:
    text = str(named_failure(error, phase))
    assert all(word in text for word in words), text
    assert none_of not in text


def test_weights_that_cannot_be_taken_fail_a_job_with_their_own_advice() -> None:
    refusal = WeightsRefused("overflow", "'conv_in.bias' has numbers too large for fp16. Ask for exportDtype bf16.")
    failure = named_failure(refusal, "export")
    assert (failure.code, str(failure)) == ("unusable_weights", str(refusal))


def test_a_process_whose_job_was_handed_out_again_stops_and_writes_nothing(stores: Stores) -> None:
    job = a_job(stores.database)

    def work(running: RunningJob) -> None:
        late = "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s"
        stores.database.run(Query(late, {"id": job.id}, len))
        stores.database.run(jobs.sweep_silent(silent_after_seconds=0.0001, max_silent_attempts=3))
        put = {"name": "x", "role": JobFileRole.GRID, "sha256": "b" * 64, "size": 1, "media_type": "image/png"}
        with pytest.raises(JobLost):
            running.run(lambda: job_files.put_file(job.id, 1, **put))
        for _ in range(500):
            running.check()
            time.sleep(0.02)

    with pytest.raises(JobLost), running_job(stores, job.id, 1) as running:
        work(running)
    row = stores.database.run(jobs.get(job.id))
    assert (row.state, row.attempt) == (JobState.SUBMITTED, 2)


def test_a_second_process_is_refused_while_the_first_lives(stores: Stores) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1):
        with pytest.raises(JobAlreadyRunning, match=str(job.id)), running_job(stores, job.id, 1):
            pytest.fail("two processes hold one job")
        stores.database.run(jobs.succeed(job.id, 1, None))


HOLDERS = (
    "select pid from pg_locks where locktype = 'advisory' and granted and pid <> pg_backend_pid()"
    " and database = (select oid from pg_database where datname = current_database())"
)


def lock_holders(stores: Stores) -> list[int]:
    return stores.database.run(Query(HOLDERS, {}, lambda rows: [row["pid"] for row in rows]))


def cut(stores: Stores, pid: int) -> None:
    stores.database.run(Query("select pg_terminate_backend(%(pid)s)", {"pid": pid}, len))


def test_the_lock_is_taken_again_when_its_connection_was_cut(stores: Stores) -> None:
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        [first] = lock_holders(stores)
        cut(stores, first)
        wait_until(lambda: lock_holders(stores) not in ([], [first]))
        running.check()
        stores.database.run(jobs.succeed(job.id, 1, None))
    wait_until(lambda: lock_holders(stores) == [])


def test_a_process_that_lost_its_lock_to_another_stops(stores: Stores) -> None:
    job = a_job(stores.database)
    with stores.database.connect() as thief, pytest.raises(JobLost), running_job(stores, job.id, 1) as running:
        cut(stores, lock_holders(stores)[0])
        thief.execute("select pg_advisory_lock(%s)", (lock_number(lock_name(job.id)),))
        for _ in range(500):
            running.check()
            time.sleep(0.02)


def test_a_named_point_stops_the_process_once(stores: Stores) -> None:
    job = a_job(stores.database)
    marker = stores.settings.data_folder / "here"
    stores.settings.jobs.crash_points["export"] = f"wait:{marker}"
    with running_job(stores, job.id, 1) as running:
        reached = threading.Thread(target=lambda: running.reach("export"))
        reached.start()
        wait_until(marker.exists)
        assert reached.is_alive()
        marker.write_text("go")
        reached.join(5)
        running.reach("somewhere else")
        stores.database.run(jobs.succeed(job.id, 1, None))
    assert not reached.is_alive()
