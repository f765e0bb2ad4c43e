"""A run that draws and what goes wrong around it: Prefect suspends it, Postgres was away, workflows end its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from prefect.exceptions import Pause

from flows.generation import images_steps, running_workflows
from flows.generation.running_workflows import RunningWorkflows
from flows.jobs.job_group import JobGroup
from flows.jobs.lifecycle import RunningJob
from flows.runs.artifacts import ArtifactBoard
from flows.runs.draining_flows import DrainLock
from flows.runs.flow_names import DRAW
from flows.runs.stop_times import FLOW_GRACE_SECONDS, RELEASE_SECONDS
from storage.errors import StatementTimeout
from storage.postgres.connection import Query
from storage.postgres.generation import workflows
from storage.postgres.jobs import job_files, jobs
from storage.postgres.locks import lock_number
from storage.records.jobs.jobs import Job, JobFileRole, JobState
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.generation.bench import a_workflow, ended, row_of, wait_until
from tests.flows.generation.test_running_workflows import Drawing, running

OTHERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where pid <> pg_backend_pid() and datname = current_database()"
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Runs end as soon as nothing is due."""
    settings.generation.linger_seconds = 0.0
    return settings


def suspend(_: RunningJob) -> int:
    """What a task of a suspended run does."""
    raise Pause


def test_a_suspended_run_releases_its_workflows_and_claims_no_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [a_workflow(stores.database) for _ in range(2)]
    with JobGroup(stores) as group, pytest.raises(Pause):
        RunningWorkflows(stores, group, suspend, lambda: None).run()
    assert states(stores, *waiting) == [(JobState.SUBMITTED, 0)] * 2

    request = SimpleNamespace(raise_if_requested=lambda: suspend_when(len(draw.begun) == 2))
    context = SimpleNamespace(get=lambda: SimpleNamespace(flow_run_suspension_request=request))
    monkeypatch.setattr(running_workflows, "FlowRunContext", context)
    draw = Drawing()
    with JobGroup(stores) as group, pytest.raises(Pause):
        RunningWorkflows(stores, group, draw, lambda: None).run()
    assert states(stores, *waiting) == [(JobState.SUBMITTED, 0)] * 2


def suspend_when(due: bool) -> None:
    if due:
        raise Pause


def states(stores: Stores, *submitted: Job) -> list[tuple[JobState, int]]:
    rows = [row_of(stores.database, job) for job in submitted]
    return [(row.state, row.silent_attempts) for row in rows]


def test_a_thread_that_ends_by_no_error_has_its_workflow_tried_again_and_failed_in_the_end(stores: Stores) -> None:
    stores.settings.jobs.max_silent_attempts = 2
    job = a_workflow(stores.database)
    tries: list[int] = []

    def leave(job: RunningJob) -> int:
        tries.append(job.attempt)
        raise SystemExit(1)

    with running(stores, leave):
        pass
    row = row_of(stores.database, job)
    assert (tries, row.state, row.failure_code) == ([1, 2], JobState.FAILED, "silent")


def cut_all(stores: Stores) -> None:
    """End every connection but one, as a restart of Postgres does."""
    with stores.database.connect() as connection:
        connection.execute(OTHERS.encode())


@contextmanager
def locked_run(stores: Stores, draw: Callable[[RunningJob], int]) -> Iterator[None]:
    """As `running`, of the one run that draws."""
    lock = DrainLock(stores.database, DRAW)
    assert lock.keep()
    with JobGroup(stores) as group:
        run = RunningWorkflows(stores, group, draw, lambda: None, lock)
        thread = threading.Thread(target=run.run, daemon=True)
        thread.start()
        yield
        thread.join(30)
        assert not thread.is_alive()
    lock.release()


def holders(stores: Stores) -> list[int]:
    """The connections that hold the lock of the run."""
    statement = (
        "select pid from pg_locks where locktype = 'advisory' and granted"
        " and (classid::bigint << 32 | objid::bigint) = %(number)s"
    )
    return stores.database.run(Query(statement, {"number": lock_number(DRAW)}, lambda rows: [r["pid"] for r in rows]))


def test_the_lock_of_the_run_is_taken_again_after_postgres_was_away(stores: Stores) -> None:
    job, other = a_workflow(stores.database), a_workflow(stores.database)
    stores.settings.generation.at_once = 1
    draw = Drawing()
    with locked_run(stores, draw):
        wait_until(lambda: draw.begun == [job.id])
        before = holders(stores)
        cut_all(stores)
        wait_until(lambda: holders(stores) not in ([], before), 5.0)
        draw.gate.set()
    assert ended(stores.database, job, other)


def test_a_run_whose_lock_another_one_has_ends_with_what_it_holds(stores: Stores) -> None:
    job, other = a_workflow(stores.database), a_workflow(stores.database)
    stores.settings.generation.at_once = 1
    stores.settings.generation.linger_seconds = 60.0
    draw, thief = Drawing(), DrainLock(stores.database, DRAW)
    with locked_run(stores, draw):
        wait_until(lambda: draw.begun == [job.id])
        while not thief.keep():
            cut_all(stores)
        time.sleep(1.2)  # a look
        draw.gate.set()
    thief.release()
    assert [row_of(stores.database, one).state for one in (job, other)] == [JobState.SUCCEEDED, JobState.SUBMITTED]


def test_the_lock_is_free_before_mlflow_is_waited_for(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []

    @contextmanager
    def slow_tracker(_: Stores) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(add=lambda: None)
        another = DrainLock(stores.database, DRAW)
        free.append(another.keep())
        another.release()

    monkeypatch.setattr(images_steps, "WorkflowTracker", slow_tracker)
    monkeypatch.setattr(images_steps, "open_backends", lambda _: {})
    lock = DrainLock(stores.database, DRAW)
    assert lock.keep()
    assert images_steps.draw_due(stores, ArtifactBoard(), lock) == []
    assert free == [True]


def test_those_that_may_have_ended_the_process_are_drawn_one_at_a_time(stores: Stores) -> None:
    first, second, fresh = (a_workflow(stores.database) for _ in range(3))
    died = "update jobs set silent_attempts = 1 where id = any(%(ids)s) returning id"
    stores.database.run(Query(died, {"ids": [first.id, second.id]}, len))
    keeps: dict[object, threading.Event] = {job.id: threading.Event() for job in (first, second, fresh)}
    draw = Drawing()

    def keep_a_picture_then_wait(job: RunningJob) -> int:
        draw.begun.append(job.id)
        while not keeps[job.id].is_set():
            job.wait(0.02)
        picture = {"name": "base-000.png", "role": JobFileRole.IMAGE, "sha256": "b" * 64, "size": 1}
        job.run(lambda: job_files.put_file(job.id, job.attempt, **picture, media_type="image/png"))
        job.run(lambda: workflows.drew(job.id, job.attempt, 0, 1.0))
        while not draw.gate.is_set():
            job.wait(0.02)
        job.run(lambda: jobs.succeed(job.id, job.attempt, None))
        return 1

    with running(stores, keep_a_picture_then_wait):
        for number, job in enumerate((first, second, fresh), start=1):
            wait_until(lambda number=number: len(draw.begun) == number, 5.0)
            time.sleep(0.1)
            assert draw.begun[number - 1 :] == [job.id], "until it has stored a picture none is beside it"
            keeps[job.id].set()
        draw.gate.set()
    assert ended(stores.database, first, second, fresh)


def test_what_postgres_refuses_ends_no_drawing(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_workflow(stores.database)
    draw, refused = Drawing(), list[int]()

    def refuse(_: object) -> None:
        refused.append(1)
        raise StatementTimeout("too long")

    with running(stores, draw):
        wait_until(lambda: draw.begun == [job.id])
        with monkeypatch.context() as broken:
            broken.setattr(workflows, "cancelling", refuse)
            wait_until(lambda: len(refused) >= 1)
            time.sleep(0.1)
        assert row_of(stores.database, job).state is JobState.RUNNING
        draw.gate.set()
    row = row_of(stores.database, job)
    assert (row.state, row.attempt) == (JobState.SUCCEEDED, 1)


def test_workflows_are_released_before_their_process_is_killed() -> None:
    assert running_workflows.RELEASE_SECONDS == RELEASE_SECONDS
    assert RELEASE_SECONDS + 2 < FLOW_GRACE_SECONDS < 30, "Prefect's worker kills after 30"
