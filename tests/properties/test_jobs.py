"""Jobs move as a small model says, whoever writes, whoever dies in between, and whatever is said too late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from pydantic import SecretStr

from storage.errors import DarkroomError, JobAlreadyRunning, JobLost, TooManyRequests, WrongState
from storage.postgres.connection import Database
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState
from storage.settings import PostgresSettings
from tests.properties.machines import CRASHES, Fault, Machine, assert_caught, fault, run
from tests.storage.makers import NO_LIMITS, an_account

LIMIT, MAX_SILENT = 4, 3
SILENT_SECONDS = 1.0
"""Nobody is silent before Postgres has been up for as long."""
S = JobState
RUNS = (S.RUNNING, S.CANCELLING)


@dataclass
class Known:
    """What the model knows of a job."""

    state: JobState = S.SUBMITTED
    attempt: int = 1
    silent: int = 0
    quiet: bool = False
    events: list[str] = field(default_factory=lambda: ["job.submitted"])
    steps: set[int] = field(default_factory=set)

    def move(self, state: JobState, *events: str) -> None:
        """Into another state."""
        self.state, self.events, self.quiet = state, [*self.events, *events], False

    def again(self, silent: int) -> None:
        """To a new flow run."""
        self.attempt, self.silent = self.attempt + 1, self.silent + silent
        self.move(S.SUBMITTED, "job.submitted")

    def after_silence(self) -> None:
        """What the relay makes of silence."""
        if self.state is S.CANCELLING:
            self.move(S.CANCELLED, "job.cancelled")
        elif self.silent + 1 >= MAX_SILENT:
            self.move(S.FAILED, "job.failed")
        else:
            self.again(1)


class Jobs(Machine):
    """An account's jobs, their flows, and the relay."""

    tables = ("idempotency_keys", "outbox", "job_checkpoints", "job_files", "jobs")

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.known: dict[UUID, Known] = {}
        self.account = an_account(database)
        self.stale: Job | None = None

    def pick(self, data: st.DataObject) -> tuple[UUID, Known, int]:
        """A job, and the attempt of a process that may be an old one's."""
        job_id = data.draw(st.sampled_from(list(self.known)))
        known = self.known[job_id]
        return job_id, known, max(1, known.attempt - data.draw(st.sampled_from([0, 0, 0, 1])))

    @rule(crash=CRASHES)
    def submit(self, crash: int | None) -> None:
        new = jobs.NewJob(
            account_id=self.account, kind=JobKind.GENERATION, request={}, recipe_hash="r", request_hash="q"
        )
        unfinished = sum(known.state not in TERMINAL for known in self.known.values())
        refusal = TooManyRequests if unfinished >= LIMIT else None
        script = jobs.submit(new, idempotency_key=None, limit=LIMIT, limits=NO_LIMITS)
        self.carry_out(script, crash, refusal, lambda made: self.known.update({made[0].id: Known()}))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), crash=CRASHES)
    def claim(self, data: st.DataObject, crash: int | None) -> None:
        job_id, known, attempt = self.pick(data)
        refusal: type[DarkroomError] | None = JobLost
        if attempt == known.attempt:
            refusal = JobAlreadyRunning if known.state in RUNS else None if known.state is S.SUBMITTED else JobLost
        self.carry_out(
            jobs.claim(job_id, attempt, uuid4()), crash, refusal, lambda _: known.move(S.RUNNING, "job.started")
        )

    @precondition(lambda self: self.known)
    @rule(data=st.data(), crash=CRASHES)
    def speak(self, data: st.DataObject, crash: int | None) -> None:
        job_id, known, attempt = self.pick(data)
        held = attempt == known.attempt and known.state in RUNS
        script = jobs.heartbeat(job_id, attempt, None)
        self.carry_out(script, crash, None if held else JobLost, lambda _: setattr(known, "quiet", False))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), step=st.integers(1, 4), crash=CRASHES)
    def keep_checkpoint(self, data: st.DataObject, step: int, crash: int | None) -> None:
        job_id, known, attempt = self.pick(data)
        held = attempt == known.attempt and known.state in RUNS

        def kept(_: object) -> None:
            known.silent, known.quiet = 0, False
            known.steps.add(step)

        script = job_files.put_checkpoint(job_id, attempt, step, f"{step:064x}", 1)
        self.carry_out(script, crash, None if held else JobLost, kept)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), keep=st.integers(0, 2), crash=CRASHES)
    def prune(self, data: st.DataObject, keep: int, crash: int | None) -> None:
        job_id, known, _ = self.pick(data)
        newest = sorted(known.steps, reverse=True)[:keep]

        def pruned(gone: list[str]) -> None:
            assert sorted(gone) == sorted(f"{step:064x}" for step in known.steps.difference(newest))
            known.steps = set(newest)

        self.carry_out(job_files.prune_checkpoints(job_id, keep), crash, None, pruned)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "end", "release"]), crash=CRASHES)
    def end(self, data: st.DataObject, how: str, crash: int | None) -> None:
        job_id, known, attempt = self.pick(data)
        state = known.state if attempt == known.attempt else None
        match how:
            case "succeed":
                script = jobs.succeed(job_id, attempt, None)
                moves = {S.RUNNING: lambda: known.move(S.SUCCEEDED, "job.succeeded")}
            case "fail":
                script = jobs.fail(job_id, attempt, "test", "because")
                failed = lambda: known.move(S.FAILED, "job.failed")  # noqa: E731
                moves = {S.RUNNING: failed, S.SUBMITTED: failed, S.CANCELLING: known.after_silence}
            case "end":
                script = jobs.end_cancelling(job_id, attempt)
                moves = {S.CANCELLING: known.after_silence}
            case _:
                script = jobs.release(job_id, attempt)
                again = lambda: known.again(0)  # noqa: E731
                moves = {S.RUNNING: again, S.SUBMITTED: again, S.CANCELLING: known.after_silence}
        move = moves.get(state) if state else None
        self.carry_out(script, crash, None if move else JobLost, lambda _: move and move())

    @precondition(lambda self: self.known)
    @rule(data=st.data(), crash=CRASHES)
    def cancel(self, data: st.DataObject, crash: int | None) -> None:
        job_id, known, _ = self.pick(data)

        def cancelled(_: object) -> None:
            if known.state is S.SUBMITTED:
                known.move(S.CANCELLED, "job.cancelled")
            elif known.state is S.RUNNING:
                quiet = known.quiet
                known.move(S.CANCELLING, "job.cancelling")
                known.quiet = quiet

        refusal = WrongState if known.state in TERMINAL else None
        self.carry_out(jobs.cancel(job_id, self.account), crash, refusal, cancelled)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        """The process of a job is killed; time passes."""
        job_id, known, _ = self.pick(data)
        if known.state in RUNS:
            self.execute("update jobs set heartbeat_at = now() - interval '1 hour' where id = %(id)s", id=job_id)
            known.quiet = True

    @rule(crash=CRASHES)
    def sweep(self, crash: int | None) -> None:
        def swept(moved: list[Job]) -> None:
            silent = {job_id for job_id, known in self.known.items() if known.state in RUNS and known.quiet}
            assert {job.id for job in moved} == silent
            for job_id in silent:
                self.known[job_id].after_silence()

        alive = [job_id for job_id, known in self.known.items() if known.state in RUNS and not known.quiet]
        self.execute("update jobs set heartbeat_at = now() + interval '1 minute' where id = any(%(ids)s)", ids=alive)
        script = jobs.sweep_silent(silent_after_seconds=SILENT_SECONDS, max_silent_attempts=MAX_SILENT)
        self.carry_out(script, crash, None, swept)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def look_at_a_flow_run(self, data: st.DataObject) -> None:
        """The relay reads a job, and finds its flow run dead only later."""
        self.stale = self.database.run(jobs.get(self.pick(data)[0]))

    @precondition(lambda self: self.stale is not None and self.stale.state is S.SUBMITTED)
    @rule(crash=CRASHES)
    def replace_its_flow_run(self, crash: int | None) -> None:
        stale = self.stale
        assert stale is not None
        known = self.known[stale.id]
        failing = stale.silent_attempts + 1 >= MAX_SILENT
        held = known.attempt == stale.attempt and (
            known.state in (S.RUNNING, S.SUBMITTED) or (failing and known.state is S.CANCELLING)
        )

        def replaced(_: Job) -> None:
            if known.state is S.CANCELLING:
                known.after_silence()
            elif failing:
                known.move(S.FAILED, "job.failed")
            else:
                known.again(1)

        self.carry_out(jobs.replace_dead_flow_run(stale, MAX_SILENT), crash, None if held else JobLost, replaced)

    @invariant()
    def rows_equal_the_model(self) -> None:
        """Every row, every checkpoint, and every event in its order."""
        rows = self.execute("select id, state, attempt, silent_attempts, ended_at is not null as ended from jobs")
        assert {row["id"]: (row["state"], row["attempt"], row["silent_attempts"], row["ended"]) for row in rows} == {
            job_id: (known.state, known.attempt, known.silent, known.state in TERMINAL)
            for job_id, known in self.known.items()
        }
        events: dict[str, list[str]] = {f"job:{job_id}": [] for job_id in self.known}
        for row in self.execute("select subject, kind from outbox order by id"):
            events[row["subject"]].append(row["kind"])
        assert events == {f"job:{job_id}": known.events for job_id, known in self.known.items()}
        steps = {(row["job_id"], row["step"]) for row in self.execute("select job_id, step from job_checkpoints")}
        assert steps == {(job_id, step) for job_id, known in self.known.items() for step in known.steps}


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


def test_jobs_move_as_the_model_says(database: Database) -> None:
    run(lambda: Jobs(database), examples=15)


@pytest.mark.soak
def test_jobs_move_as_the_model_says_at_length(database: Database) -> None:
    run(lambda: Jobs(database), examples=1000, steps=50)


FAULTS = [
    fault(jobs.SQL, "claim", "and state = 'submitted'"),
    fault(jobs.SQL, "claim", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "heartbeat", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "heartbeat", "and state in ('running', 'cancelling')"),
    fault(jobs.SQL, "succeed", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "succeed", "and state = 'running'"),
    fault(jobs.SQL, "fail", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "fail", "and state in ('running', 'submitted')"),
    fault(jobs.SQL, "end_cancelling", "and state = 'cancelling'"),
    fault(jobs.SQL, "end_cancelling", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "cancel_submitted", "and state = 'submitted'"),
    fault(jobs.SQL, "cancel_running", "and state = 'running'"),
    fault(jobs.SQL, "submit_again", "attempt = attempt + 1, "),
    fault(jobs.SQL, "submit_again", "and attempt = %(attempt)s"),
    fault(jobs.SQL, "submit_again", "silent_attempts + %(silent)s", "silent_attempts"),
    fault(jobs.SQL, "silent", "state in ('running', 'cancelling')", "state = 'running'"),
    fault(jobs.SQL, "unfinished", "'submitted', 'running', 'cancelling'", "'submitted', 'running'"),
    fault(job_files.SQL, "put_checkpoint", "silent_attempts = 0, "),
    fault(job_files.SQL, "put_checkpoint", "and attempt = %(attempt)s"),
    fault(job_files.SQL, "prune_checkpoints", "order by step desc", "order by step"),
]
"""Each of them must be noticed by the machine."""


def test_a_fault_is_caught(database: Database) -> None:
    for made in FAULTS[10:12]:
        assert_caught(lambda: Jobs(database), made)


@pytest.mark.soak
@pytest.mark.parametrize("made", FAULTS, ids=str)
def test_every_fault_is_caught(database: Database, made: Fault) -> None:
    assert_caught(lambda: Jobs(database), made)
