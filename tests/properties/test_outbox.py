"""A committed fact has its effect, an uncommitted one never: whoever commits late, whichever relay dies when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from psycopg.rows import DictRow
from pydantic import SecretStr

from storage.errors import NotFound
from storage.postgres.connection import Database, Query
from storage.postgres.events import outbox
from storage.records.events.events import JobStarted, OutboxRow
from storage.settings import PostgresSettings
from tests.properties.machines import CRASHES, Fault, Machine, assert_caught, fault, run

MAX_FAILURES = 3
"""An event that failed so often is given up."""
SUBJECTS = [UUID(int=number) for number in range(1, 4)]
APPEND = "insert into outbox (kind, subject, payload) values ('job.started', %(subject)s, %(payload)s) returning id"


@dataclass
class Writer:
    """A transaction that has written events and not committed them."""

    connection: psycopg.Connection[DictRow]
    events: dict[int, UUID] = field(default_factory=dict)


@dataclass
class Known:
    """What the model knows of a committed event."""

    subject: UUID
    due: bool = True
    done: bool = False
    aside: bool = False
    attempts: int = 0
    failures: int = 0

    @property
    def waits(self) -> bool:
        """Whether later events of its subject wait for it."""
        return not self.done and not self.aside


class Outbox(Machine):
    """Writers that commit in any order, and relays that may die at any moment."""

    tables = ("outbox",)

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.known: dict[int, Known] = {}
        self.writers: list[Writer] = []
        self.claimed: list[OutboxRow] = []
        self.effects: set[int] = set()
        self.discarded: set[int] = set()

    @precondition(lambda self: len(self.writers) < 3)
    @rule()
    def begin(self) -> None:
        connection = self.database.connect()
        connection.execute("begin")
        self.writers.append(Writer(connection))

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), subject=st.sampled_from(SUBJECTS))
    def write(self, data: st.DataObject, subject: UUID) -> None:
        writer = data.draw(st.sampled_from(self.writers))
        values = {"subject": f"job:{subject}", "payload": f'{{"job_id": "{subject}", "attempt": 1}}'}
        row = writer.connection.execute(APPEND, values).fetchone()
        assert row is not None
        writer.events[int(row["id"])] = subject

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), how=st.sampled_from([b"commit", b"commit", b"rollback", b"die"]))
    def end(self, data: st.DataObject, how: bytes) -> None:
        writer = data.draw(st.sampled_from(self.writers))
        self.writers.remove(writer)
        if how != b"die":
            writer.connection.execute(how)
        if how == b"commit":
            self.known |= {event: Known(subject) for event, subject in writer.events.items()}
        writer.connection.close()

    @rule(subject=st.sampled_from(SUBJECTS), crash=CRASHES)
    def append(self, subject: UUID, crash: int | None) -> None:
        """As repositories do, in a transaction of its own."""
        script = outbox.append(JobStarted(job_id=subject, attempt=1))
        self.carry_out(script, crash, None, lambda event: self.known.update({event: Known(subject)}))

    @rule(limit=st.integers(1, 3), of_kind=st.booleans(), crash=CRASHES)
    def claim(self, limit: int, of_kind: bool, crash: int | None) -> None:
        first: dict[UUID, int] = {}
        for event, known in sorted(self.known.items()):
            if known.waits:
                first.setdefault(known.subject, event)
        waiting = [event for event in sorted(first.values()) if self.known[event].due]

        def claimed(rows: list[OutboxRow]) -> None:
            assert [row.id for row in rows] == waiting[:limit]
            for row in rows:
                known = self.known[row.id]
                known.due, known.attempts, known.failures = False, known.attempts + 1, known.failures + 1
                assert row.attempts == known.attempts
            self.claimed += rows
            # The next try is seconds away, and a slow machine may take as long for a run.
            later = "update outbox set next_attempt_at = now() + interval '1 hour' where id = any(%(ids)s)"
            self.execute(f"{later} and next_attempt_at > now()", ids=[row.id for row in rows])

        self.carry_out(outbox.claim(limit, kinds=["job.started"] if of_kind else None), crash, None, claimed)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def have_the_effect(self, data: st.DataObject) -> None:
        self.effects.add(data.draw(st.sampled_from(self.claimed)).id)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), how=st.sampled_from(["done", "failed", "wait"]), crash=CRASHES)
    def acknowledge(self, data: st.DataObject, how: str, crash: int | None) -> None:
        row = data.draw(st.sampled_from(self.claimed))
        known = self.known[row.id]
        match how:
            case "done" if row.id in self.effects:
                self.carry_out(outbox.done(row.id), crash, None, lambda _: setattr(known, "done", True))
            case "failed":
                self.fails(row.id, crash)
            case "wait":

                def waits(_: object) -> None:
                    known.due = True
                    known.failures = known.failures if known.done else max(0, known.failures - 1)

                self.carry_out(outbox.wait_no_longer("why", row.id), crash, None, waits)
            case _:
                return

    def fails(self, event: int, crash: int | None) -> None:
        """A claimed event's effect did not happen."""
        known = self.known[event]

        def failed(was_given_up: bool) -> None:
            assert was_given_up == (not known.done and known.failures >= MAX_FAILURES)
            known.aside = known.aside if known.done else was_given_up

        self.carry_out(outbox.failed(event, "why"), crash, None, failed)

    @precondition(lambda self: any(known.waits for known in self.known.values()))
    @rule()
    def fails_each_time(self) -> None:
        """The oldest event that waits, until it is given up: chance alone seldom gets there."""
        event = min(event for event, known in self.known.items() if known.waits)
        for _ in range(MAX_FAILURES + 1):
            if self.known[event].waits:
                self.execute("update outbox set next_attempt_at = now() where id = %(id)s", id=event)
                self.known[event].due = True
                self.claim(len(SUBJECTS), False, None)
                self.fails(event, None)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), how=st.sampled_from(["replay", "discard"]), crash=CRASHES)
    def decide(self, data: st.DataObject, how: str, crash: int | None) -> None:
        """What an operator makes of an event that waits or was given up."""
        event = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[event]

        def decided(_: object) -> None:
            if how == "discard":
                known.done = True
                self.discarded.add(event)
            else:
                known.aside, known.failures, known.due = False, 0, True

        refusal = NotFound if known.done else None
        script = outbox.replay(event) if how == "replay" else outbox.discard(event)
        self.carry_out(script, crash, refusal, decided)

    @rule(crash=CRASHES)
    def give_up_deadly(self, crash: int | None) -> None:
        def given_up(events: list[int]) -> None:
            deadly = {event for event, known in self.known.items() if known.waits and known.due}
            deadly = {event for event in deadly if self.known[event].failures >= MAX_FAILURES}
            assert set(events) == deadly
            for event in deadly:
                self.known[event].aside = True

        self.carry_out(outbox.give_up_deadly(), crash, None, given_up)

    @rule()
    def relay_dies(self) -> None:
        """What it had claimed is claimed again, later."""
        self.claimed.clear()

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(sorted(self.known)))
        self.execute("update outbox set next_attempt_at = now() where id = %(id)s and done_at is null", id=event)
        self.known[event].due = True

    @invariant()
    def rows_equal_the_model(self) -> None:
        """What is committed and nothing else, what is done, how often it was tried."""
        rows = self.execute(
            "select id, done_at is not null as done, dead_at is not null as aside, attempts, failures,"
            " next_attempt_at <= now() as due from outbox"
        )
        found = {
            row["id"]: (row["done"], row["aside"], row["attempts"], row["failures"], row["done"] or row["due"])
            for row in rows
        }
        assert found == {
            event: (known.done, known.aside, known.attempts, known.failures, known.done or known.due)
            for event, known in self.known.items()
        }
        backlog = self.database.run(outbox.backlog())
        assert backlog.waiting == sum(known.waits for known in self.known.values())
        assert backlog.dead == sum(known.aside and not known.done for known in self.known.values())

    def teardown(self) -> None:
        """Once nobody writes and nobody dies, every committed event has its effect, and the queue is empty."""
        for writer in self.writers:
            writer.connection.close()
        self.execute("update outbox set next_attempt_at = now(), dead_at = null where done_at is null")
        while rows := self.database.run(outbox.claim(2)):
            self.effects |= {row.id for row in rows}
            self.database.run(outbox.done(*(row.id for row in rows)))
        assert self.effects | self.discarded == set(self.known)
        assert self.database.run(outbox.backlog()).waiting == 0


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with (
        Database(PostgresSettings(url=SecretStr(module_database_url))) as opened,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(outbox, "MAX_FAILURES", MAX_FAILURES)
        yield opened


def test_every_committed_event_has_its_effect(database: Database) -> None:
    run(lambda: Outbox(database), examples=10)


@pytest.mark.soak
def test_every_committed_event_has_its_effect_at_length(database: Database) -> None:
    run(lambda: Outbox(database), examples=500, steps=50)


def test_what_commits_late_is_not_passed_over(database: Database) -> None:
    """Numbers are given before the commit: a reader with a cursor stands behind the slow one's by then."""
    database.run(Query("delete from outbox", {}, len))
    with database.connect() as slow, slow.transaction():
        row = slow.execute(APPEND, {"subject": "job:slow", "payload": f'{{"job_id": "{SUBJECTS[0]}", "attempt": 1}}'})
        late = int((row.fetchone() or {})["id"])
        early = database.run(outbox.append(JobStarted(job_id=SUBJECTS[1], attempt=1)))
        cursor = max(event.id for event in database.run(outbox.claim(10)))
        database.run(outbox.done(early))
    behind = database.run(Query("select id from outbox where id > %(cursor)s", {"cursor": cursor}, len))
    assert (late < early, behind) == (True, 0)  # what the cursor would read on
    assert [event.id for event in database.run(outbox.claim(10))] == [late]


FAULTS = [
    fault(outbox.SQL, "claim", "where done_at is null and dead_at", "where dead_at"),
    fault(outbox.SQL, "claim", "and next_attempt_at <= now()"),
    fault(outbox.SQL, "claim", "done_at is null and dead_at is null and next", "done_at is null and next"),
    fault(outbox.SQL, "claim", "order by id", "order by id desc"),
    fault(outbox.SQL, "claim", "set attempts = attempts + 1,", "set attempts = attempts,"),
    fault(outbox.SQL, "claim", "failures = failures + 1,"),
    fault(outbox.SQL, "claim", "earlier.id < outbox.id", "earlier.id > outbox.id"),
    fault(outbox.SQL, "claim", "and earlier.done_at is null"),
    fault(outbox.SQL, "claim", "and earlier.dead_at is null"),
    fault(outbox.SQL, "claim", "limit %(limit)s", "limit 1"),
    fault(outbox.SQL, "done", "id = any(%(ids)s::bigint[]) and ", "%(ids)s::bigint[] is not null and "),
    fault(outbox.SQL, "wait_no_longer", "set next_attempt_at = created_at, ", "set "),
    fault(outbox.SQL, "wait_no_longer", "greatest(0, failures - 1)", "failures"),
    fault(outbox.SQL, "failed", "failures >= %(maximum)s", "failures > %(maximum)s"),
    fault(outbox.SQL, "failed", "and done_at is null"),
    fault(outbox.SQL, "give_up_deadly", "and next_attempt_at <= now()"),
    fault(outbox.SQL, "replay", "failures = 0, "),
    fault(outbox.SQL, "replay", "and done_at is null"),
    fault(outbox.SQL, "discard", "and done_at is null"),
    fault(outbox.SQL, "backlog", " where done_at is null"),
]
"""Each of them must be noticed by the machine."""


def test_a_fault_is_caught(database: Database) -> None:
    assert_caught(lambda: Outbox(database), FAULTS[1])


@pytest.mark.soak
@pytest.mark.parametrize("made", FAULTS, ids=str)
def test_every_fault_is_caught(database: Database, made: Fault) -> None:
    assert_caught(lambda: Outbox(database), made)
