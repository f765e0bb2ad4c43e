"""A key is one request: whoever repeats it, whoever dies in between, however late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from pydantic import SecretStr

from storage.errors import DarkroomError, IdempotencyKeyReused, WrongState
from storage.postgres.accounts import idempotency
from storage.postgres.connection import Database, Query, Script
from storage.postgres.jobs import jobs
from storage.postgres.upkeep import retention
from storage.records.jobs.jobs import JobKind
from storage.settings import PostgresSettings
from tests.properties.machines import CRASHES, Fault, Machine, assert_caught, fault, run
from tests.storage.makers import NO_LIMITS, an_account

KEYS, REQUESTS = st.sampled_from(["a", "b"]), st.sampled_from(["one", "two"])
HOURS = 24


@dataclass(frozen=True)
class First:
    """The first use of a key."""

    request: str
    response: str
    job: bool
    old: bool = False


class Keys(Machine):
    """Two accounts that use the same few keys for jobs and for other things."""

    tables = ("idempotency_keys", "outbox", "jobs", "made")

    def __init__(self, database: Database) -> None:
        database.run(Query("create table if not exists made (response text primary key)", {}, len))
        super().__init__(database)
        self.accounts = [an_account(database, name) for name in ("owner", "another")]
        self.first: dict[tuple[UUID, str], First] = {}
        self.made: set[str] = set()
        self.jobs: set[UUID] = set()
        self.count = 0

    def make(self, response: str, fails: bool) -> Script[str]:
        """What a request makes: a row, and its response. One that fails keeps nothing."""
        yield from Query("insert into made values (%(response)s)", {"response": response}, len)
        if fails:
            raise WrongState("no")
        return response

    @rule(who=st.integers(0, 1), key=st.none() | KEYS, request=REQUESTS, fails=st.booleans(), crash=CRASHES)
    def ask(self, who: int, key: str | None, request: str, fails: bool, crash: int | None) -> None:
        self.count += 1
        account, response = self.accounts[who], f"response {self.count}"
        first = self.first.get((account, key)) if key else None
        refusal: type[DarkroomError] | None = WrongState if fails else None
        if first is not None:
            refusal = IdempotencyKeyReused if first.request != f"ask {request}" else None

        def note(given: str) -> None:
            if first is not None:
                assert given == first.response
                return
            assert given == response
            self.made.add(response)
            if key:
                self.first[account, key] = First(f"ask {request}", response, job=False)

        script = idempotency.once(account, key, f"ask {request}", self.make(response, fails))
        self.carry_out(script, crash, refusal, note)

    @rule(who=st.integers(0, 1), key=KEYS, request=REQUESTS, crash=CRASHES)
    def submit(self, who: int, key: str, request: str, crash: int | None) -> None:
        account, asked = self.accounts[who], f"submit {request}"
        first = self.first.get((account, key))
        new = jobs.NewJob(account_id=account, kind=JobKind.GENERATION, request={}, recipe_hash="r", request_hash=asked)

        def submitted(given: tuple[jobs.Job, bool]) -> None:
            job, is_new = given
            assert is_new == (first is None)
            if first is not None:
                assert str(job.id) == first.response
            else:
                self.jobs.add(job.id)
                self.first[account, key] = First(asked, str(job.id), job=True)

        refusal = IdempotencyKeyReused if first is not None and first.request != asked else None
        self.carry_out(jobs.submit(new, idempotency_key=key, limit=10_000, limits=NO_LIMITS), crash, refusal, submitted)

    @rule(who=st.integers(0, 1), key=KEYS, minutes=st.sampled_from([-1, 1]))
    def time_passes(self, who: int, key: str, minutes: int) -> None:
        """A key comes close to the end of its time, or just over it."""
        used = (self.accounts[who], key)
        if used not in self.first:
            return
        age = "now() - make_interval(hours => %(hours)s, mins => %(minutes)s)"
        statement = f"update idempotency_keys set created_at = {age} where account_id = %(account)s and key = %(key)s"
        self.execute(statement, hours=HOURS, minutes=minutes, account=used[0], key=key)
        first = self.first[used]
        self.first[used] = First(first.request, first.response, first.job, old=minutes > 0)

    @rule(crash=CRASHES)
    def forget(self, crash: int | None) -> None:
        old = {used for used, first in self.first.items() if first.old}

        def forgotten(count: int) -> None:
            assert count == len(old)
            for used in old:
                del self.first[used]

        [row] = self.execute("select now() - make_interval(hours => %(hours)s) as moment", hours=HOURS)
        script = retention.delete_batch("idempotency_keys", row["moment"], 1000)
        self.carry_out(script, crash, None, forgotten)

    @invariant()
    def rows_equal_the_model(self) -> None:
        """Every key with its request and response, and nothing made twice or half."""
        rows = self.execute(
            "select account_id, key, request_hash, coalesce(response, job_id::text) as response from idempotency_keys"
        )
        assert {(row["account_id"], row["key"]): (row["request_hash"], row["response"]) for row in rows} == {
            used: (first.request, first.response) for used, first in self.first.items()
        }
        assert {row["response"] for row in self.execute("select response from made")} == self.made
        assert {row["id"] for row in self.execute("select id from jobs")} == self.jobs


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


def test_a_key_is_one_request(database: Database) -> None:
    run(lambda: Keys(database), examples=10)


@pytest.mark.soak
def test_a_key_is_one_request_at_length(database: Database) -> None:
    run(lambda: Keys(database), examples=500, steps=50)


FAULTS = [
    fault(idempotency.SQL, "recall", "account_id = %(account_id)s and "),
    fault(idempotency.SQL, "keep", "where account_id = %(account_id)s and key = %(key)s", "where key = %(key)s"),
    fault(idempotency.SQL, "keep", "response = %(response)s where", "response = key where"),
    fault(jobs.SQL, "recall_key", "account_id = %(account_id)s and "),
    fault(retention.SQL, "idempotency_keys", "created_at < %(before)s", "created_at > %(before)s"),
    fault(retention.SQL, "idempotency_keys", "(account_id, key) in (select account_id, key", "key in (select key"),
]
"""Each of them must be noticed by the machine."""


def test_a_fault_is_caught(database: Database) -> None:
    assert_caught(lambda: Keys(database), FAULTS[4])


@pytest.mark.soak
@pytest.mark.parametrize("made", FAULTS, ids=str)
def test_every_fault_is_caught(database: Database, made: Fault) -> None:
    assert_caught(lambda: Keys(database), made)
