"""What is stored follows a word that changed (0035 and later): rows, and events that are read again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.connection import Database
from storage.postgres.events import outbox
from storage.postgres.jobs import jobs
from storage.postgres.migrating import migrate
from storage.records.events.events import JobStarted, JobSubmitted
from storage.settings import PostgresSettings
from tests.storage.postgres.earlier_schema import earlier_database

LAST_BEFORE = "0034"
ADDED = "insert into sendings (id, purpose, reader, channel) values (gen_random_uuid(), 'tell', 1, 'email')"
JOB = UUID(int=7)
ROWS = """
insert into accounts (name) values ('owner');
insert into jobs (id, account_id, kind, request, recipe_hash, hand_out, silent_hand_outs)
select '{job}', id, 'training', '{{}}', 'hash', 3, 1 from accounts;
insert into outbox (kind, subject, payload, done_at)
select kind, 'job:{job}', payload, done_at
  from (values ('job.submitted', '{{"job_id": "{job}", "job_kind": "training", "hand_out": 3}}'::jsonb, null),
               ('job.started', '{{"job_id": "{job}", "hand_out": 2}}'::jsonb, now())) event (kind, payload, done_at);
insert into alarms (name, detail) values ('late', 'since noon');
insert into notifications (key, type, details, audience, title, text)
values ('alarm:late:2026', 'system', '{{}}', 'everyone', 'Late', ''),
       ('alarming', 'system', '{{}}', 'everyone', 'x', '');
insert into sendings (id, purpose, reader, channel) values ('{job}', 'tell', 1, 'email');
insert into activity_batches (source, set_aside) values ('s', 2);
insert into idempotency_keys (account_id, key, request_hash, answer) select id, 'k', 'hash', 'kept' from accounts;
insert into outbox (kind, subject, payload, set_aside_at) values ('odd', 'odd', '{{}}', now());
insert into outbox (kind, subject, payload, done_at)
select 'job.started', 'job:other', jsonb_build_object('job_id', '{job}', 'hand_out', n), now()
  from generate_series(1, 2500) n;
"""


@pytest.fixture
def before(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """A database with the schema and the rows of before."""
    with earlier_database(postgres_server, tmp_path, last=LAST_BEFORE, rows=ROWS.format(job=JOB)) as url:
        yield url


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_jobs_and_their_events_name_the_attempt(before: str) -> None:
    migrate(before)
    with Database(PostgresSettings(url=SecretStr(before))) as database:
        job = database.run(jobs.get(JOB))
        events = [row.event() for row in database.run(outbox.of_subject(f"job:{JOB}"))]
    assert (job.attempt, job.silent_attempts) == (3, 1)
    assert [event.attempt for event in events if isinstance(event, JobSubmitted | JobStarted)] == [3, 2]
    assert rows(before, "select count(*) from outbox where payload ? 'hand_out'") == [(0,)]
    [(attempts,)] = rows(before, "select sum((payload ->> 'attempt')::int) from outbox where subject = 'job:other'")
    assert attempts == 2500 * 2501 // 2


def test_a_step_that_was_cut_short_goes_on(before: str) -> None:
    migrate(before)
    again = "update outbox set payload = payload - 'attempt' || '{\"hand_out\": 9999}' where id % 3 = 0 returning id"
    changed = len(rows(before, again))
    rows(before, "delete from schema_migrations where name = '0036_attempts_in_events' returning name")
    assert migrate(before) == ["0036_attempts_in_events"]
    assert rows(before, "select count(*) from outbox where payload ->> 'attempt' = '9999'") == [(changed,)]
    assert rows(before, "select count(*) from outbox where payload ? 'hand_out'") == [(0,)]


def test_tables_columns_and_stored_words_have_the_names_of_now(before: str) -> None:
    migrate(before)
    assert rows(before, "select name, detail from alerts where cleared_at is null") == [("late", "since noon")]
    assert rows(before, "select key from notifications order by id") == [("alert:late:2026",), ("alarming",)]
    assert rows(before, "select purpose, endpoint_id from sendings") == [("notify", None)]
    assert rows(before, "select rejected from activity_batches") == [(2,)]
    assert rows(before, "select response from idempotency_keys") == [("kept",)]
    assert rows(before, "select kind from outbox where dead_at is not null") == [("odd",)]
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(before, ADDED)
