"""Jobs: states only move as written, one claimant wins, silent ones get another attempt, keys are kept."""

from __future__ import annotations

import importlib
import pkgutil
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from uuid import uuid4

import msgspec
import psycopg
import pytest

import storage.postgres
from storage.errors import (
    DarkroomError,
    InvalidRequest,
    JobAlreadyRunning,
    JobLost,
    WrongState,
)
from storage.postgres.connection import Database, Query
from storage.postgres.jobs import job_files, jobs, submissions
from storage.records.jobs.jobs import TERMINAL, TRANSITIONS, Job, JobFileRole, JobState, Progress
from storage.records.jobs.machines import Machine
from storage.records.jobs.training import TrainingJobRequest
from tests.storage.makers import a_bare_generation, a_job, settings_for

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


def test_a_retry_is_refused_when_its_base_model_is_gone(database: Database) -> None:
    job = a_job(database)
    database.run(jobs.cancel(job.id, job.account_id))
    execute(database, "delete from base_models returning 1")
    with pytest.raises(InvalidRequest, match="It was replaced and then deleted") as refused:
        database.run(submissions.retry(job.id, job.account_id, settings_for("postgresql://unused")))
    assert list(refused.value.fields) == ["baseModel"]


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
