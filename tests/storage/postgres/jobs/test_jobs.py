"""Jobs: states only move as written, one claimant wins, silence is answered, keys are kept."""

from __future__ import annotations

import importlib
import pkgutil
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

import storage.postgres
from storage.errors import (
    DarkroomError,
    IdempotencyKeyReused,
    InUse,
    InvalidRequest,
    JobAlreadyRunning,
    JobLost,
    NotFound,
    TooManyRequests,
    WrongState,
)
from storage.postgres.connection import Database, Query
from storage.postgres.events import outbox
from storage.postgres.jobs import data_sets, job_files, jobs, submissions
from storage.records.events.events import JobStarted, JobSubmitted
from storage.records.jobs.jobs import TERMINAL, TRANSITIONS, Job, JobFileRole, JobState, Progress
from storage.records.jobs.machines import Machine
from storage.records.jobs.training import TrainingJobRequest, TrainingRequest
from tests.storage.makers import NO_LIMITS, a_bare_generation, a_data_set, a_job, an_account, settings_for

REPOSITORIES = [
    module
    for found in pkgutil.walk_packages(storage.postgres.__path__, "storage.postgres.")
    if hasattr(module := importlib.import_module(found.name), "SQL")
]
"""Every module with statements."""
PAIRS = list(product(JobState, JobState))


def execute(database: Database, statement: str, **parameters: object) -> None:
    database.run(Query(statement, parameters, len))


def put_in_state(database: Database, state: JobState) -> Job:
    job = a_job(database)
    if state is JobState.SUBMITTED:
        return job
    if state is JobState.CANCELLED:
        return database.run(jobs.cancel(job.id, job.account_id))
    database.run(jobs.claim(job.id, 1, uuid4()))
    if state is JobState.CANCELLING:
        database.run(jobs.cancel(job.id, job.account_id))
    elif state is JobState.SUCCEEDED:
        database.run(jobs.succeed(job.id, 1, None))
    elif state is JobState.FAILED:
        database.run(jobs.fail(job.id, 1, "test", "because"))
    return database.run(jobs.get(job.id))


def test_the_trigger_allows_exactly_the_written_moves(database: Database) -> None:
    for old, new in PAIRS:
        job = put_in_state(database, old)
        ended = "now()" if new in TERMINAL else "null"
        code = "'x'" if new is JobState.FAILED else "null"
        statement = f"update jobs set state = %(new)s, ended_at = {ended}, failure_code = {code}, heartbeat_at = now()"
        try:
            execute(database, statement + " where id = %(id)s", new=new, id=job.id)
            moved = True
        except psycopg.errors.CheckViolation:
            moved = False
        allowed = (old, new) in TRANSITIONS or (old is new and old not in TERMINAL)
        assert moved == allowed, f"{old} to {new}"


def test_a_terminal_state_refuses_every_repository_call(database: Database) -> None:
    for state in TERMINAL:
        job = put_in_state(database, state)
        calls = [
            jobs.claim(job.id, job.attempt, uuid4()),
            jobs.succeed(job.id, job.attempt, None),
            jobs.fail(job.id, job.attempt, "x", "y"),
            jobs.release(job.id, job.attempt),
            jobs.cancel(job.id, job.account_id),
            jobs.heartbeat(job.id, job.attempt, None),
            job_files.put_checkpoint(job.id, job.attempt, 1, "b" * 64, 1),
        ]
        for call in calls:
            with pytest.raises((JobLost, WrongState)):
                database.run(call)
        assert database.run(jobs.get(job.id)) == job


def test_one_of_many_claimants_wins_and_the_others_are_refused_by_name(database: Database) -> None:
    job = a_job(database)

    def claim(_: int) -> str:
        try:
            return database.run(jobs.claim(job.id, 1, uuid4())).state
        except JobAlreadyRunning as error:
            return f"refused {job.id}" if str(job.id) in str(error) else str(error)

    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(claim, range(32)))
    assert sorted(outcomes) == [f"refused {job.id}"] * 31 + ["running"]


def test_submitting_commits_the_job_and_its_event_together(database: Database) -> None:
    job = a_job(database)
    events = [row.event() for row in database.run(outbox.of_subject(f"job:{job.id}"))]
    assert events == [JobSubmitted(job_id=job.id, job_kind="training", attempt=1)]
    database.run(jobs.claim(job.id, 1, uuid4()))
    last = database.run(outbox.of_subject(f"job:{job.id}"))[-1].event()
    assert last == JobStarted(job_id=job.id, attempt=1)


def test_one_key_from_many_threads_makes_one_job(database: Database) -> None:
    owner = an_account(database)
    data_set = a_data_set(database, owner)
    request, settings = TrainingRequest(data_set_id=data_set, class_word="mug"), settings_for("postgresql://unused")

    def submit(seed: int) -> tuple[UUID, bool]:
        job, new = database.run(
            submissions.submit_training(request, owner, settings, seed=seed, idempotency_key="once")
        )
        return job.id, new

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(submit, range(64)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    assert len(database.run(jobs.list_for_account(owner))) == 1


def test_a_key_with_another_request_is_refused_and_leaves_nothing(database: Database) -> None:
    first = a_job(database, key="mine")
    with pytest.raises(IdempotencyKeyReused, match="mine"):
        a_job(database, first.account_id, key="mine", steps=9)
    assert len(database.run(jobs.list_for_account(first.account_id))) == 1


def test_keys_belong_to_their_account(database: Database) -> None:
    first = a_job(database, an_account(database, "one"), key="same")
    second = a_job(database, an_account(database, "two"), key="same")
    assert first.id != second.id
    with pytest.raises(NotFound):
        database.run(jobs.get_for_account(first.id, second.account_id))


def test_a_silent_job_gets_a_new_attempt_and_its_old_process_writes_nothing(database: Database) -> None:
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, uuid4()))
    execute(database, "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s", id=job.id)
    moved = database.run(jobs.sweep_silent(silent_after_seconds=0.0001, max_silent_attempts=3))
    assert [(one.state, one.attempt, one.silent_attempts) for one in moved] == [(JobState.SUBMITTED, 2, 1)]
    again = database.run(jobs.claim(job.id, 2, uuid4()))
    assert again.attempt == 2
    late_writes = [
        jobs.heartbeat(job.id, 1, Progress(phase="fit")),
        job_files.put_checkpoint(job.id, 1, 5, "b" * 64, 1),
        jobs.succeed(job.id, 1, None),
        job_files.put_file(job.id, 1, name="x", role=JobFileRole.GRID, sha256="b" * 64, size=1, media_type="image/png"),
    ]
    for write in late_writes:
        with pytest.raises(JobLost):
            database.run(write)
    assert database.run(job_files.checkpoints(job.id)) == []
    assert database.run(job_files.files(job.id)) == []


def test_the_first_attempt_resolves_what_the_recipe_leaves_open_for_all_of_them(database: Database) -> None:
    first = Machine(device="cpu", threads=3, libraries={"torch": "2"})
    job = a_job(database)
    claimed = database.run(jobs.claim(job.id, 1, uuid4(), first))
    recipe = msgspec.convert(claimed.request, TrainingJobRequest).recipe
    assert (recipe.threads, recipe.device, claimed.recipe_hash) == (3, "cpu", recipe.fingerprint())
    database.run(jobs.release(job.id, 1))
    other = Machine(device="gpu", threads=9, libraries={})
    again = database.run(jobs.claim(job.id, 2, uuid4(), other))
    assert (again.request, again.recipe_hash) == (claimed.request, claimed.recipe_hash)


def test_a_request_that_nobody_can_read_is_claimed_so_that_its_flow_fails_it(database: Database) -> None:
    job = a_bare_generation(database)
    machine = Machine(device="cpu", threads=3, libraries={})
    assert database.run(jobs.claim(job.id, 1, uuid4(), machine)).request == {}


def test_a_job_that_stays_silent_fails_unless_it_makes_progress(database: Database) -> None:
    job = a_job(database)
    states = []
    for attempt in range(1, 6):
        database.run(jobs.claim(job.id, attempt, uuid4()))
        if attempt == 2:
            database.run(job_files.put_checkpoint(job.id, attempt, 4, "b" * 64, 1))
        execute(database, "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s", id=job.id)
        [moved] = database.run(jobs.sweep_silent(silent_after_seconds=0.0001, max_silent_attempts=3))
        states.append((moved.state, moved.silent_attempts))
        if moved.state is JobState.FAILED:
            break
    assert [count for _, count in states] == [1, 1, 2, 2]
    assert states[-1][0] is JobState.FAILED
    assert database.run(jobs.get(job.id)).failure_code == "silent"


def test_silence_is_not_judged_while_postgres_itself_was_just_unavailable(database: Database) -> None:
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, uuid4()))
    execute(database, "update jobs set heartbeat_at = now() - interval '1 year' where id = %(id)s", id=job.id)
    one_day = 86400.0  # longer than this test's server has been up
    assert database.run(jobs.sweep_silent(silent_after_seconds=one_day, max_silent_attempts=3)) == []


def test_cancelling_a_silent_job_ends_it_as_cancelled(database: Database) -> None:
    job = put_in_state(database, JobState.CANCELLING)
    execute(database, "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s", id=job.id)
    [ended] = database.run(jobs.sweep_silent(silent_after_seconds=0.0001, max_silent_attempts=3))
    assert ended.state is JobState.CANCELLED


def test_a_retry_starts_from_the_old_jobs_newest_checkpoint(database: Database) -> None:
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, uuid4()))
    for step in (2, 4):
        database.run(job_files.put_checkpoint(job.id, 1, step, f"{step:064x}", 1))
    with pytest.raises(WrongState):
        database.run(submissions.retry(job.id, job.account_id, settings_for("postgresql://unused")))
    database.run(jobs.fail(job.id, 1, "test", "because"))
    new, _ = database.run(submissions.retry(job.id, job.account_id, settings_for("postgresql://unused")))
    assert new.retry_of == job.id
    assert new.request == job.request
    assert [point.step for point in database.run(job_files.checkpoints(new.id))] == [4]


def test_a_data_set_in_use_is_not_deleted(database: Database) -> None:
    job = a_job(database)
    assert job.data_set_id is not None
    with pytest.raises(InUse, match=str(job.id)):
        database.run(data_sets.delete(job.data_set_id, job.account_id))
    database.run(jobs.cancel(job.id, job.account_id))
    assert len(database.run(data_sets.delete(job.data_set_id, job.account_id))) == 2
    with pytest.raises(NotFound):
        database.run(data_sets.get(job.data_set_id, job.account_id))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"class_word": "spaceship"}, "classWord"),
        ({"base_model": "nope"}, "baseModel"),
        ({"identifier": "a/b"}, "identifier"),
    ],
)
def test_a_request_that_does_not_fit_names_the_field_and_leaves_nothing(
    database: Database, fields: dict[str, Any], name: str
) -> None:
    owner = an_account(database)
    request: dict[str, Any] = {"data_set_id": a_data_set(database, owner), "class_word": "mug"} | fields
    script = submissions.submit_training(
        TrainingRequest(**request), owner, settings_for("postgresql://unused"), seed=1, idempotency_key="k"
    )
    with pytest.raises(InvalidRequest) as caught:
        database.run(script)
    assert list(caught.value.fields) == [name]
    assert database.run(jobs.list_for_account(owner)) == []
    assert database.run(outbox.backlog()).waiting == 0


def test_an_account_has_a_limit_of_unfinished_jobs(database: Database) -> None:
    job = a_job(database)
    new = jobs.NewJob(
        account_id=job.account_id, kind=job.kind, request={}, recipe_hash="r", request_hash="h", data_set_id=None
    )
    with pytest.raises(TooManyRequests):
        database.run(jobs.submit(new, idempotency_key=None, limit=1, limits=NO_LIMITS))


def test_the_limit_holds_for_submissions_at_once(database: Database) -> None:
    account, template = an_account(database), a_job(database)
    new = jobs.NewJob(
        account_id=account, kind=template.kind, request=template.request, recipe_hash="r", request_hash="h"
    )

    def submit(_: int) -> bool:
        try:
            database.run(jobs.submit(new, idempotency_key=None, limit=20, limits=NO_LIMITS))
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(submit, range(100)))

    assert admitted == 19  # and the one that was there
    assert len(database.run(jobs.list_for_account(account))) == 20


def test_every_statement_prepares_on_the_migrated_schema(database: Database) -> None:
    with database.connect() as connection:
        for repository in REPOSITORIES:
            for name, statement in repository.SQL.items():
                plain, number = statement.rstrip().rstrip(";"), 0
                if plain.startswith(("copy ", "listen ", "notify ", "set ")) or re.search(r"\{\w+\}", plain):
                    continue  # Postgres prepares no COPY, and statements with parts run only when these are put in
                seen: dict[str, str] = {}
                while "%(" in plain:
                    start = plain.index("%(")
                    key = plain[start + 2 : plain.index(")s", start)]
                    if key not in seen:
                        number += 1
                        seen[key] = f"${number}"
                    plain = plain.replace(f"%({key})s", seen[key])
                connection.execute(f"prepare {repository.__name__.rsplit('.', 1)[-1]}_{name} as {plain}".encode())


def test_errors_all_say_who_they_are() -> None:
    kinds = [DarkroomError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    codes = [kind.code for kind in set(kinds)]
    assert len(set(codes)) == len(codes)
