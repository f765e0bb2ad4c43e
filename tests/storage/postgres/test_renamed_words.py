"""What is stored follows a word that changed (0035 and later): rows, and events that are read again."""

from __future__ import annotations

import shutil
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
from storage.postgres.migrating import MIGRATIONS, migrate
from storage.records.events.events import JobStarted, JobSubmitted
from storage.settings import PostgresSettings
from tests.conftest import fresh_database

LAST_BEFORE = "0034"
JOB = UUID(int=7)
ROWS = """
insert into accounts (name) values ('owner');
insert into jobs (id, account_id, kind, request, recipe_hash, hand_out, silent_hand_outs)
select '{job}', id, 'training', '{{}}', 'hash', 3, 1 from accounts;
insert into outbox (kind, subject, payload, done_at)
select kind, 'job:{job}', payload, done_at
  from (values ('job.submitted', '{{"job_id": "{job}", "job_kind": "training", "hand_out": 3}}'::jsonb, null),
               ('job.started', '{{"job_id": "{job}", "hand_out": 2}}'::jsonb, now())) event (kind, payload, done_at);
insert into outbox (kind, subject, payload, done_at)
select 'job.started', 'job:other', jsonb_build_object('job_id', '{job}', 'hand_out', n), now()
  from generate_series(1, 2500) n;
"""


@pytest.fixture
def before(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """A database with the schema and the rows of before."""
    for file in MIGRATIONS.glob("*.sql"):
        if file.name[:4] <= LAST_BEFORE:
            shutil.copy(file, tmp_path)
    with fresh_database(postgres_server, "template1") as url:
        migrate(url, folder=tmp_path)
        with psycopg.connect(url) as connection:
            connection.execute(ROWS.format(job=JOB).encode())
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
    again = "update outbox set payload = payload - 'attempt' || '{\"hand_out\": 9}' where id % 3 = 0 returning id"
    changed = len(rows(before, again))
    rows(before, "delete from schema_migrations where name = '0036_attempts_in_events' returning name")
    assert migrate(before) == ["0036_attempts_in_events"]
    assert rows(before, "select count(*) from outbox where payload ->> 'attempt' = '9'") == [(changed + 1,)]
    assert rows(before, "select count(*) from outbox where payload ? 'hand_out'") == [(0,)]
