"""Workflows beside their jobs: who is drawn next, what a lost attempt writes, how each ends and what it is charged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from storage.errors import JobLost
from storage.postgres.accounts import accounts
from storage.postgres.connection import Database, Query, Script
from storage.postgres.generation import source_pictures, workflows
from storage.postgres.jobs import jobs
from storage.postgres.upkeep import invariants
from storage.records.generation.resolved_drawings import SourcePicture
from storage.records.generation.workflow_rows import FailedTries, StepState, Workflow, WorkflowStep
from storage.records.jobs.jobs import Job, JobState
from tests.storage.makers import (
    a_bare_generation,
    a_drawn_picture,
    a_job,
    a_trained_version,
    a_workflow,
    an_account,
)

W, R, S, F, C = StepState


@pytest.fixture
def owner(database: Database) -> UUID:
    """Somebody with a model."""
    account = an_account(database)
    a_trained_version(database, account)
    return account


def of_two_steps(database: Database, owner: UUID) -> Job:
    """A workflow of two pictures for 7 credits each, and one that goes on from the second for 3."""
    version = a_trained_version(database, owner)
    base = {"name": "base", "model": version.id, "prompt": "a mug", "count": 2}
    later = {**base, "name": "later", "count": 1, "operation": "img2img", "image": {"$ref": "base", "image": 1}}
    job = a_workflow(database, owner, workflow=[base, later])
    execute(database, "update workflow_steps set picture_price = 7 - 4 * position")
    execute(database, "update workflows set price = 17")
    return job


def execute(database: Database, statement: str, **parameters: object) -> list[dict[str, Any]]:
    return database.run(Query(statement, parameters, lambda rows: [dict(row) for row in rows]))


def claimed(database: Database, job: Job) -> Job:
    return database.run(jobs.claim(job.id, job.attempt, None))


def row_of(database: Database, job: Job) -> Workflow:
    [row] = database.run(workflows.of_jobs([job.id]))
    return row


def steps_of(database: Database, job: Job) -> list[WorkflowStep]:
    return database.run(workflows.steps_of_jobs([job.id]))


def silent(database: Database, job: Job) -> None:
    execute(database, "update jobs set heartbeat_at = now() - interval '1 hour' where id = %(id)s", id=job.id)
    database.run(jobs.sweep_silent(silent_after_seconds=0.0, max_silent_attempts=1))


ENDS: dict[str, tuple[Callable[[Database, Job], object], JobState, list[StepState]]] = {
    "failed": (lambda db, job: db.run(jobs.fail(job.id, 1, "test", "because")), JobState.FAILED, [S, F]),
    "swept": (silent, JobState.FAILED, [S, F]),
    "cancelled": (
        lambda db, job: (db.run(jobs.cancel(job.id, job.account_id)), db.run(jobs.end_cancelling(job.id, 1))),
        JobState.CANCELLED,
        [S, C],
    ),
    "cancelled while it waits again": (
        lambda db, job: (db.run(jobs.release(job.id, 1)), db.run(jobs.cancel(job.id, job.account_id))),
        JobState.CANCELLED,
        [S, C],
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_however_a_job_ends_its_steps_end_and_what_was_drawn_is_charged(
    database: Database, owner: UUID, how: str
) -> None:
    end, state, steps = ENDS[how]
    job = claimed(database, of_two_steps(database, owner))
    database.run(workflows.begin_step(job.id, 1, 0, "local"))
    for number in range(2):
        a_drawn_picture(database, job, "base", number)
    a_drawn_picture(database, job, "base", 1)  # once more, as a process does that did not know: no other picture
    database.run(workflows.end_step(job.id, 1, 0))
    database.run(workflows.begin_step(job.id, 1, 1, "local"))
    assert row_of(database, job).charged is None
    end(database, job)
    ended, after = database.run(jobs.get(job.id)), steps_of(database, job)
    assert ended.state is state
    assert [step.state for step in after] == steps
    assert all(step.ended_at is not None for step in after)
    assert after[1].failure_code == ended.failure_code
    assert after[1].failure_reason == ended.failure_reason
    assert after[0].failure_code is None
    assert row_of(database, job).charged == 14
    assert database.run(invariants.broken()) == []


def test_all_that_was_drawn_costs_the_price_and_only_once(database: Database, owner: UUID) -> None:
    job = claimed(database, of_two_steps(database, owner))
    for position, name, count in ((0, "base", 2), (1, "later", 1)):
        database.run(workflows.begin_step(job.id, 1, position, "local"))
        for number in range(count):
            a_drawn_picture(database, job, name, number)
        database.run(workflows.end_step(job.id, 1, position))
    database.run(jobs.succeed(job.id, 1, None))
    assert (row_of(database, job).charged, row_of(database, job).price) == (17, 17)
    assert [step.state for step in steps_of(database, job)] == [S, S]
    database.run(jobs.delete_files(job.id, owner))
    database.run(jobs.note_tracking_run(job.id, 1, "run"))
    assert row_of(database, job).charged == 17


def test_of_nothing_drawn_nothing_is_charged(database: Database, owner: UUID) -> None:
    waiting, failing = of_two_steps(database, owner), of_two_steps(database, owner)
    database.run(jobs.cancel(waiting.id, owner))
    claimed(database, failing)
    database.run(jobs.fail(failing.id, 1, "no_model", "it is gone"))
    assert [row_of(database, job).charged for job in (waiting, failing)] == [0, 0]
    assert [step.state for step in steps_of(database, waiting)] == [C, C]
    # Which step it was of: the first that was not drawn.
    assert [(step.state, step.failure_code) for step in steps_of(database, failing)] == [(F, "no_model"), (C, None)]


def test_files_that_are_no_pictures_of_a_step_cost_nothing_nor_do_too_many(database: Database, owner: UUID) -> None:
    job = claimed(database, of_two_steps(database, owner))
    for number in range(5):
        a_drawn_picture(database, job, "base", number)
    a_drawn_picture(database, job, "of no step")
    database.run(jobs.fail(job.id, 1, "test", "because"))
    assert row_of(database, job).charged == 14


def test_a_training_that_ends_is_no_workflow(database: Database) -> None:
    training = claimed(database, a_job(database))
    database.run(jobs.fail(training.id, 1, "test", "because"))
    bare = a_bare_generation(database)
    database.run(jobs.cancel(bare.id, bare.account_id))
    assert execute(database, "select * from workflows") == []
    assert database.run(invariants.broken()) == []


def test_a_lost_attempt_writes_nothing(database: Database, owner: UUID) -> None:
    job = claimed(database, of_two_steps(database, owner))
    begun = database.run(workflows.begin_step(job.id, 1, 0, "comfyui"))
    assert (begun.state, begun.backend, begun.tries) == (R, "comfyui", 1)
    database.run(jobs.release(job.id, 1))
    # What waits is not drawn, and what had it is still named.
    assert [(step.state, step.backend) for step in steps_of(database, job)] == [(W, "comfyui"), (W, None)]
    claimed(database, database.run(jobs.get(job.id)))
    before = steps_of(database, job)
    writes: list[Callable[[], Script[object]]] = [
        lambda: workflows.begin_step(job.id, 1, 0, "local"),
        lambda: workflows.drew(job.id, 1, 0, 5.0),
        lambda: workflows.end_step(job.id, 1, 0),
    ]
    for write in writes:
        with pytest.raises(JobLost, match=r"no longer attempt 1's"):
            database.run(write)
    assert steps_of(database, job) == before
    again = database.run(workflows.begin_step(job.id, 2, 0, None))
    assert (again.backend, again.tries, again.started_at) == ("comfyui", 2, begun.started_at)


def test_a_picture_more_shows_that_its_attempt_gets_on(database: Database, owner: UUID) -> None:
    job = claimed(database, of_two_steps(database, owner))
    database.run(workflows.begin_step(job.id, 1, 0, "local"))
    execute(
        database, "update jobs set silent_attempts = 2, heartbeat_at = now() - interval '1 hour' where ended_at is null"
    )
    for seconds in (1.5, 2.0):
        database.run(workflows.drew(job.id, 1, 0, seconds))
    [row] = execute(
        database,
        "select silent_attempts, heartbeat_at > now() - interval '1 minute' as heard from jobs"
        " where kind = 'generation'",
    )
    assert row == {"silent_attempts": 0, "heard": True}
    assert steps_of(database, job)[0].seconds == 3.5


def test_pictures_are_counted_by_step(database: Database, owner: UUID) -> None:
    job = claimed(database, of_two_steps(database, owner))
    a_drawn_picture(database, job, "base", 0)
    a_drawn_picture(database, job, "base", 1)
    assert database.run(workflows.drawn(job.id)) == {"base": 2}


def next_one(database: Database, *passed: UUID) -> UUID | None:
    def script() -> Script[UUID | None]:
        due = yield from workflows.next_due(passed)
        if due is not None:
            yield from jobs.claim(due.id, due.attempt, None)
        return due and due.id

    return database.run(script)


def test_the_next_one_is_of_who_has_least_drawn_and_then_of_the_first_lane(database: Database, owner: UUID) -> None:
    other = an_account(database, "other")
    a_trained_version(database, other)
    low = a_workflow(database, owner, priority="low")
    mine = [a_workflow(database, owner) for _ in range(3)]
    theirs = [a_workflow(database, other) for _ in range(2)]
    high, higher = (a_workflow(database, owner, priority="high") for _ in range(2))
    expected = [high, theirs[0], higher, theirs[1], mine[0], mine[1], mine[2], low]
    assert [next_one(database) for _ in expected] == [job.id for job in expected]
    assert next_one(database) is None


def test_what_is_passed_over_waits_and_what_was_before_workflows_is_drawn(database: Database, owner: UUID) -> None:
    first, second = a_workflow(database, owner), a_workflow(database, owner)
    old = a_bare_generation(database)
    assert next_one(database, first.id) == second.id
    assert [next_one(database, first.id), next_one(database, first.id), next_one(database)] == [old.id, None, first.id]


def test_what_banned_accounts_have_submitted_waits(database: Database, owner: UUID) -> None:
    job = a_workflow(database, owner)
    database.run(accounts.ban(database.run(accounts.account(owner)), "spam"))
    assert (next_one(database), database.run(workflows.wanted("generate-images"))) == (None, None)
    database.run(accounts.lift_ban(database.run(accounts.account(owner))))
    assert database.run(workflows.wanted("generate-images")) is not None
    assert next_one(database) == job.id


def test_no_two_claim_the_same_one(database: Database, owner: UUID) -> None:
    made = {a_workflow(database, owner).id for _ in range(12)}
    with ThreadPoolExecutor(6) as pool:
        taken = [one for one in pool.map(lambda _: next_one(database), range(18)) if one is not None]
    assert sorted(taken) == sorted(made)


def test_a_run_is_wanted_while_something_waits_and_nobody_draws(database: Database, owner: UUID) -> None:
    assert database.run(workflows.wanted("generate-images")) is None
    job = a_workflow(database, owner)
    number = database.run(workflows.wanted("generate-images"))
    assert number is not None
    assert database.run(workflows.wanted("generate-images")) == number
    with database.session_lock("generate-images"):
        assert database.run(workflows.wanted("generate-images")) is None
    claimed(database, job)
    assert database.run(workflows.wanted("generate-images")) is None


def test_a_postponed_one_waits_and_is_neither_next_nor_wanted_before_its_time(database: Database, owner: UUID) -> None:
    job = claimed(database, a_workflow(database, owner))
    assert database.run(workflows.failed_tries(job.id)) == FailedTries()
    database.run(workflows.postpone(job.id, 1, 50.0, FailedTries(failures=2, begun=1, seconds=30.0)))
    row, tries = database.run(jobs.get(job.id)), database.run(workflows.failed_tries(job.id))
    assert (row.state, row.attempt, row.silent_attempts) == (JobState.SUBMITTED, 2, 0)
    assert (tries.failures, tries.begun, round(tries.seconds)) == (2, 1, 30)
    assert [(lane.waiting, lane.drawing) for lane in database.run(workflows.queue())] == [(1, 0)]
    assert (next_one(database), database.run(workflows.wanted("generate-images"))) == (None, None)
    assert 49 < (database.run(workflows.due_in) or 0) < 50
    execute(database, "update workflows set not_before = now()")
    assert database.run(workflows.wanted("generate-images")) is not None
    assert (database.run(workflows.due_in), next_one(database)) == (None, job.id)
    database.run(workflows.settle(job.id))
    assert database.run(workflows.failed_tries(job.id)) == FailedTries()
    database.run(jobs.cancel(job.id, owner))
    assert database.run(workflows.postpone(job.id, 2, 9.0, FailedTries())).state is JobState.CANCELLED


def test_whoever_draws_is_notified(database: Database, database_url: str, owner: UUID) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("listen workflows")

        def heard() -> int:
            return len(list(listener.notifies(timeout=0.2, stop_after=1)))

        job = a_workflow(database, owner)
        assert heard() == 1
        claimed(database, job)
        assert heard() == 0
        database.run(jobs.release(job.id, 1))
        assert heard() == 1
        claimed(database, database.run(jobs.get(job.id)))
        database.run(jobs.cancel(job.id, owner))
        assert heard() == 1


def test_what_goes_before_is_what_is_drawn_and_what_is_before_it_in_its_lane(database: Database, owner: UUID) -> None:
    running, first, last = of_two_steps(database, owner), a_workflow(database, owner), a_workflow(database, owner)
    high = a_workflow(database, owner, priority="high")
    execute(database, "update workflow_steps set picture_units = 2")
    execute(database, "update workflows set units = 2 where job_id = any(%(ids)s)", ids=[first.id, last.id, high.id])
    claimed(database, running)

    def ahead(job: Job, lane: int) -> tuple[int, float]:
        found = database.run(workflows.ahead(job, lane))
        return found.workflows, found.units

    # Three pictures in the one that is drawn.
    assert ahead(high, 0) == (1, 6.0)
    assert ahead(first, 1) == (2, 8.0)
    assert ahead(last, 1) == (3, 10.0)
    database.run(workflows.begin_step(running.id, 1, 0, "local"))
    database.run(workflows.end_step(running.id, 1, 0))
    assert ahead(high, 0) == (1, 2.0), "what its first step drew is done"


def test_a_pace_is_the_median_of_what_was_drawn_lately(database: Database, owner: UUID) -> None:
    for seconds in (10.0, 40.0, 20.0):
        job = claimed(database, of_two_steps(database, owner))
        database.run(workflows.begin_step(job.id, 1, 0, "local"))
        database.run(workflows.drew(job.id, 1, 0, seconds))
        database.run(workflows.end_step(job.id, 1, 0))
        database.run(workflows.begin_step(job.id, 1, 1, "comfyui"))
    execute(database, "update workflow_steps set picture_units = 2")
    [pace] = database.run(workflows.paces())
    # Two pictures of two units each took 20 seconds.
    assert (pace.family, pace.backend, pace.seconds_per_unit) == ("sd1", "local", 5.0)


def test_lists_are_filtered_and_leave_out_what_was_deleted(database: Database, owner: UUID) -> None:
    a, both, none = (a_workflow(database, owner, tags=tags) for tags in (("a",), ("a", "b"), ()))
    old = a_bare_generation(database)
    a_job(database, owner)
    a_workflow(database, a_stranger(database), tags=("a",))
    database.run(jobs.cancel(none.id, owner))

    def listed(**asked: Any) -> list[UUID]:
        return [job.id for job in database.run(workflows.list_for_account(owner, **asked))]

    assert listed() == [old.id, none.id, both.id, a.id]
    assert database.run(workflows.list_for_account(owner))[3] == msgspec.structs.replace(a, request={})
    assert listed(tags=["a"]) == [both.id, a.id]
    assert listed(tags=["b", "a"]) == [both.id]
    assert listed(limit=2, before=none.sequence) == [both.id, a.id]
    assert listed(state=JobState.CANCELLED) == [none.id]
    assert listed(without_failed=True) == [old.id, both.id, a.id]
    assert listed(since=both.submitted_at, until=none.submitted_at) == [both.id]
    assert database.run(workflows.delete(both.id, a_stranger(database))) == []
    assert database.run(workflows.delete(both.id, owner)) == [both.id]
    assert listed(tags=["a"]) == [a.id]


def a_stranger(database: Database) -> UUID:
    stranger = database.run(accounts.ensure_account("stranger")).id
    a_trained_version(database, stranger)
    return stranger


def test_tags_and_metadata_are_its_owners(database: Database, owner: UUID) -> None:
    job = of_two_steps(database, owner)
    changed = database.run(workflows.change(job.id, owner, tags=["a", "b", "a"], metadata={"mine": [1]}))
    assert changed is not None
    assert (changed.tags, changed.metadata) == (["a", "b"], {"mine": [1]})
    kept = database.run(workflows.change(job.id, owner, tags=[]))
    assert kept is not None
    assert (kept.tags, kept.metadata) == ([], {"mine": [1]})
    assert database.run(workflows.change(job.id, a_stranger(database), tags=["x"])) is None
    step = database.run(workflows.change_step(job.id, "later", {"favourite": True}))
    assert step is not None
    assert [one.metadata for one in steps_of(database, job)] == [{}, {"favourite": True}]
    assert database.run(workflows.change_step(job.id, "of no such name", {})) is None


def test_the_bytes_of_its_sources_stay_until_it_has_ended(database: Database, owner: UUID) -> None:
    sent, mask = "ab" * 32, "cd" * 32
    for sha256 in (sent, mask):
        database.run(source_pictures.add(owner, sha256, 10, 64, 64))
    execute(database, "update source_pictures set used_at = now() - interval '9 days'")
    job = a_workflow(database, owner, operation="inpaint", image=sent, mask=mask)
    assert execute(database, "select count(*) as n from source_pictures where used_at > now() - interval '1 day'") == [
        {"n": 2}
    ]
    database.run(source_pictures.delete(owner, sent))
    held = execute(database, "select sha256, size from workflow_sources order by 1")
    assert held == [{"sha256": sent, "size": 10}, {"sha256": mask, "size": 10}]
    # Whoever draws it finds out its size, and another one that goes on from it keeps it for itself.
    assert database.run(source_pictures.find(owner, [sent])) == {sent: SourcePicture(sent, 64, 64)}
    other = a_workflow(database, owner, operation="img2img", image=sent)
    database.run(jobs.cancel(job.id, owner))
    assert execute(database, "select job_id, sha256 from workflow_sources") == [{"job_id": other.id, "sha256": sent}]
    database.run(jobs.cancel(other.id, owner))
    assert database.run(source_pictures.find(owner, [sent])) == {}


def test_a_workflow_that_ended_without_a_tracking_run_is_found(database: Database, owner: UUID) -> None:
    never, tracked, lost = (a_workflow(database, owner) for _ in range(3))
    database.run(jobs.cancel(never.id, owner))
    for job in (tracked, lost):
        claimed(database, job)
        database.run(jobs.fail(job.id, 1, "test", "because"))
    database.run(jobs.note_tracking_run(tracked.id, 1, "run"))
    assert [job.id for job in database.run(workflows.untracked())] == [lost.id]


BROKEN = {
    "delete from workflow_steps": "generation {} lacks its workflow or the rows of its steps",
    "update workflows set charged = 0": "workflow {} is charged other than its end says",
    "update jobs set state = 'cancelled', ended_at = now()": "job {} has ended, and a step or a source of it has not",
}


@pytest.mark.parametrize("statement", BROKEN)
def test_what_must_hold_is_looked_at(database: Database, owner: UUID, statement: str) -> None:
    job = a_workflow(database, owner)
    assert database.run(invariants.broken()) == []
    execute(database, "alter table jobs disable trigger user")
    where = "job_id = %(id)s" if "workflow" in statement else "id = %(id)s"
    execute(database, f"{statement} where {where}", id=job.id)
    execute(database, "alter table jobs enable trigger user")
    assert BROKEN[statement].format(job.id) in database.run(invariants.broken())
