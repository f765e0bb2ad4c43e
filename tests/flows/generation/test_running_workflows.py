"""One run draws what is due: which goes next, how many at once, when it stops and what stops one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from prefect.exceptions import TerminationSignal

from flows.generation import picture_room
from flows.generation.running_workflows import RunningWorkflows
from flows.jobs.job_group import JobGroup
from flows.jobs.lifecycle import RunningJob
from flows.runs.flow_names import DRAW
from storage.errors import DiskFull, JobCannotSucceed
from storage.free_space import Volume
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.postgres.generation.workflow_submissions import adopted
from storage.postgres.jobs import jobs
from storage.postgres.upkeep import pauses
from storage.records.generation.prices import Priority
from storage.records.jobs.jobs import JobState
from storage.records.metrics.freshness import Switch
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.generation.bench import a_workflow, ended, row_of, steps_of, wait_until
from tests.storage.makers import a_bare_generation, an_account


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Runs end as soon as nothing is due."""
    settings.generation.linger_seconds = 0.0
    return settings


@dataclass
class Drawing:
    """What is done in a workflow's thread: it waits for the gate, then succeeds."""

    begun: list[UUID] = field(default_factory=list[UUID])
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def __call__(self, job: RunningJob) -> int:
        self.begun.append(job.id)
        job.run(lambda: adopted(job.row, job.stores.settings))
        while not self.gate.is_set():
            job.wait(0.02)
        if self.error is not None:
            raise self.error
        job.run(lambda: jobs.succeed(job.id, job.attempt, None))
        return 1


@contextmanager
def running(stores: Stores, draw: Callable[[RunningJob], int]) -> Iterator[RunningWorkflows]:
    """A run in a thread of the test, which ends by itself."""
    with JobGroup(stores) as group:
        run = RunningWorkflows(stores, group, draw, lambda: None)
        thread = threading.Thread(target=run.run, daemon=True)
        thread.start()
        yield run
        thread.join(30)
        assert not thread.is_alive()


def test_accounts_with_fewer_drawn_go_first_then_the_first_lane_then_the_oldest(stores: Stores) -> None:
    stores.settings.generation.at_once = 1
    one, other = (stores.database.run(accounts.ensure_account(name)).id for name in ("one", "other"))
    a_workflow(stores.database)  # makes the base model's row
    stores.database.run(
        Query("update jobs set state = 'cancelled', ended_at = now() where state = 'submitted' returning id", {}, len)
    )
    late = a_workflow(stores.database, priority=Priority.LOW, owner=one)
    first, second = (a_workflow(stores.database, owner=one) for _ in range(2))
    others = a_workflow(stores.database, owner=other)
    urgent = a_workflow(stores.database, priority=Priority.HIGH, owner=one)
    draw = Drawing()
    draw.gate.set()

    with running(stores, draw):
        pass

    assert draw.begun == [job.id for job in (urgent, first, second, others, late)]
    stores.settings.generation.at_once = 3
    mine, mine_too = (a_workflow(stores.database, owner=one) for _ in range(2))
    theirs = a_workflow(stores.database, owner=other)
    crowd = Drawing()
    with running(stores, crowd):
        wait_until(lambda: len(crowd.begun) == 3)
        crowd.gate.set()
    assert crowd.begun == [mine.id, theirs.id, mine_too.id]


def test_no_account_keeps_more_than_half_of_the_places_while_another_waits(stores: Stores) -> None:
    stores.settings.generation.at_once = 4
    an_account(stores.database)  # with a base model, which is everybody's
    one, other = (stores.database.run(accounts.ensure_account(name)).id for name in ("one", "other"))
    mine = [a_workflow(stores.database, priority=Priority.HIGH, owner=one) for _ in range(6)]
    draw = Drawing()
    with running(stores, draw):
        wait_until(lambda: len(draw.begun) == 4)
        theirs = [a_workflow(stores.database, priority=Priority.LOW, owner=other) for _ in range(3)]
        wait_until(lambda: len(draw.begun) == 6)
        time.sleep(0.3)
        assert draw.begun[4:] == [job.id for job in theirs[:2]], "the others' share, and no more"
        rows = [row_of(stores.database, job) for job in mine[2:4]]
        assert [(row.state, row.attempt, row.silent_attempts) for row in rows] == [(JobState.SUBMITTED, 2, 0)] * 2
        draw.gate.set()
    assert {row_of(stores.database, job).state for job in (*mine, *theirs)} == {JobState.SUCCEEDED}


def test_there_are_never_more_at_once_and_one_that_comes_meanwhile_is_drawn(stores: Stores) -> None:
    stores.settings.generation.at_once = 2
    early = [a_workflow(stores.database) for _ in range(2)]
    draw = Drawing()
    with running(stores, draw):
        wait_until(lambda: len(draw.begun) == 2)
        late = a_workflow(stores.database)
        time.sleep(0.3)
        assert len(draw.begun) == 2
        draw.gate.set()
    assert ended(stores.database, *early, late)
    assert draw.begun[2] == late.id


def test_a_failure_and_a_request_that_nobody_can_read_are_those_of_one_alone(stores: Stores) -> None:
    unreadable, good = a_bare_generation(stores.database), a_workflow(stores.database)
    draw = Drawing()
    draw.gate.set()
    with running(stores, draw) as run:
        pass
    row = row_of(stores.database, unreadable)
    assert (row.state, row.failure_code) == (JobState.FAILED, "job_failed")
    assert "is none that this release can read" in (row.failure_reason or "")
    assert row_of(stores.database, good).state is JobState.SUCCEEDED
    assert {one.state for one in run.done} == {"failed", "completed"}

    broken = a_workflow(stores.database)
    draw.error = JobCannotSucceed("no picture of it")
    with running(stores, draw):
        pass
    assert row_of(stores.database, broken).failure_reason == "no picture of it"


def test_a_cancelled_workflow_stops_within_a_second_and_the_others_go_on(stores: Stores) -> None:
    # Its heartbeat alone would notice it after much longer.
    stores.settings.jobs.heartbeat_seconds = 60.0
    job, other = a_workflow(stores.database), a_workflow(stores.database)
    draw = Drawing()
    with running(stores, draw):
        wait_until(lambda: len(draw.begun) == 2)
        stores.database.run(jobs.cancel(job.id, job.account_id))
        wait_until(lambda: row_of(stores.database, job).state is JobState.CANCELLED, 1.5)
        assert row_of(stores.database, other).state is JobState.RUNNING
        draw.gate.set()
    assert row_of(stores.database, other).state is JobState.SUCCEEDED


def test_a_paused_flow_claims_no_more_and_ends_with_what_it_has(stores: Stores) -> None:
    stores.settings.generation.at_once = 1
    stores.settings.generation.linger_seconds = 60.0
    job, waiting = a_workflow(stores.database), a_workflow(stores.database)
    draw = Drawing()
    with running(stores, draw):
        wait_until(lambda: draw.begun == [job.id])
        stores.database.run(pauses.add(DRAW, Switch.DARKROOM))
        draw.gate.set()
    assert row_of(stores.database, job).state is JobState.SUCCEEDED
    assert row_of(stores.database, waiting).state is JobState.SUBMITTED


def test_a_run_that_has_drawn_waits_for_more(stores: Stores) -> None:
    stores.settings.generation.linger_seconds = 0.8
    a_workflow(stores.database)
    draw = Drawing()
    draw.gate.set()
    with running(stores, draw) as run:
        wait_until(lambda: len(run.done) == 1)
        late = a_workflow(stores.database)
        wait_until(lambda: ended(stores.database, late), 1.0)


def test_a_process_that_has_to_stop_releases_every_workflow(stores: Stores) -> None:
    waiting = [a_workflow(stores.database) for _ in range(2)]
    draw = Drawing()
    looks: list[int] = []

    class Terminated(RunningWorkflows):
        def _look(self) -> bool:
            looks.append(1)
            if len(draw.begun) == 2:
                raise TerminationSignal(15)
            return super()._look()

    with JobGroup(stores) as group, pytest.raises(TerminationSignal):
        Terminated(stores, group, draw, lambda: None).run()
    rows = [row_of(stores.database, job) for job in waiting]
    assert [(row.state, row.attempt, row.silent_attempts) for row in rows] == [(JobState.SUBMITTED, 2, 0)] * 2


def test_while_postgres_is_away_it_waits_and_then_goes_on(stores: Stores) -> None:
    job = a_workflow(stores.database)
    draw = Drawing()
    with running(stores, draw):
        wait_until(lambda: draw.begun == [job.id])
        cut = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname = current_database()"
        )
        with stores.database.connect() as connection:
            connection.execute(cut.encode())
        later = a_workflow(stores.database)
        draw.gate.set()
    assert ended(stores.database, job, later)
    assert [step.state for step in steps_of(stores.database, job)] == ["cancelled"]


def test_where_there_is_no_room_a_workflow_is_submitted_again_and_nothing_is_claimed_for_a_while(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_room, "FIRST_PAUSE_SECONDS", 0.4)
    stores.settings.generation.at_once = 1
    jobs_ = [a_workflow(stores.database) for _ in range(2)]
    draw = Drawing(error=DiskFull("The blob store has no room left."))
    draw.gate.set()
    with running(stores, draw) as run:
        wait_until(lambda: len(run.done) == 1)
        row, began = row_of(stores.database, jobs_[0]), time.monotonic()
        assert (row.state, row.attempt, row.silent_attempts) == (JobState.SUBMITTED, 2, 0)
        draw.error = None
        wait_until(lambda: len(draw.begun) > 1)
        assert time.monotonic() - began > 0.2
    assert {row_of(stores.database, job).state for job in jobs_} == {JobState.SUCCEEDED}
    assert [one.state for one in run.done] == ["no_room_for_pictures", "completed", "completed"]


def test_nothing_is_claimed_while_a_disk_is_under_the_floor(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    job, free = a_workflow(stores.database), [0]
    monkeypatch.setattr(Volume, "free", lambda _volume: free[0])
    stores.settings.quotas.free_space_bytes = 100
    draw = Drawing()
    draw.gate.set()
    with running(stores, draw):
        time.sleep(0.3)
        assert (draw.begun, row_of(stores.database, job).attempt) == ([], 1)
        free[0] = 100
    assert row_of(stores.database, job).state is JobState.SUCCEEDED
