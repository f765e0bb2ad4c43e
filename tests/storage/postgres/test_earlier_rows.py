"""Rows of before are brought up to date in batches (0033), while others read and write."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.connection import Database
from storage.postgres.migrating import migrate
from storage.postgres.upkeep import invariants
from storage.settings import PostgresSettings
from tests.storage.postgres.earlier_schema import earlier_database

MODELS = int(os.environ.get("EARLIER_MODELS", "250"))
LAST_BEFORE = "0022"
ROWS = """
insert into accounts (name) select 'account ' || n from generate_series(1, 230) n;
insert into jobs (account_id, kind, request, recipe_hash, state, ended_at)
select account.id, 'training',
       jsonb_build_object('availability', case when n % 10 = 0 then 'Public' else 'Private' end), n, 'succeeded', now()
  from generate_series(1, {models}) n join accounts account on account.number = 1 + n % 230;
insert into models (account_id, name, status, availability, upload_type, published_at)
select account_id, 'model ' || recipe_hash, 'Published', request ->> 'availability', 'Trained', now() from jobs;
insert into model_versions (model_id, job_id, position, name, base_model, trained_words, status, availability,
                            upload_type, published_at)
select model.id, job.id, 1, 'v1', 'SD 1.5', '{{}}', 'Published', model.availability, 'Trained', now()
  from models model join jobs job on 'model ' || job.recipe_hash = model.name;
insert into version_files (version_id, path, role, sha256, size)
select id, 'weights.safetensors', 'weights', lpad(to_hex(id), 64, '0'), 10 from model_versions;
"""


@pytest.fixture
def before(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """A database with the schema of before, and with fine-tunes, nine of ten private."""
    with earlier_database(postgres_server, tmp_path, last=LAST_BEFORE, rows=ROWS.format(models=MODELS)) as url:
        yield url


def run(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return [row[0] for row in cursor] if cursor.description else []


def test_fine_tunes_and_accounts_of_before_are_brought_up_to_date_while_others_read_and_write(before: str) -> None:
    ended, waits, failures, written = threading.Event(), list[float](), list[Exception](), list[int]()

    def use() -> None:
        while not ended.is_set():
            began = time.monotonic()
            try:
                run(before, "select count(*) from models where published_at is not null")
                made = run(
                    before,
                    "insert into version_files (version_id, path, role, sha256, size)"
                    " select id, gen_random_uuid(), 'folder', repeat('a', 64), 1 from model_versions"
                    " order by random() limit 1 returning 1",
                )
                written.extend(made)
            except psycopg.Error as error:
                failures.append(error)
            waits.append(time.monotonic() - began)

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    began = time.monotonic()
    migrate(before)
    took = time.monotonic() - began
    ended.set()
    for user in users:
        user.join()
    sys.stdout.write(f"{MODELS:,} fine-tunes: {took:.1f} s; longest wait {max(waits):.2f} s of {len(waits)}\n")
    assert failures == []
    assert max(waits) < 5
    for table in ("models", "model_versions"):
        assert run(before, f"select availability from {table} where published_at is not null group by 1") == ["Public"]
        assert run(before, f"select count(*) from {table} where published_at is null") == [MODELS - MODELS // 10]
    assert run(before, "select sum(bytes)::int from account_usage") == [10 * MODELS + len(written)]
    with Database(PostgresSettings(url=SecretStr(before))) as database:
        assert not [fault for fault in database.run(invariants.broken()) if "bytes" in fault]


def test_a_step_that_was_cut_short_goes_on(before: str) -> None:
    migrate(before)
    counted = run(before, "select md5(array_agg(row(account_id, bytes) order by account_id)::text) from account_usage")
    # As after a death before the last batch: some accounts and models are done, and the file is not.
    run(before, "delete from schema_migrations where name = '0033_earlier_rows'")
    run(
        before, "update account_usage set bytes = 0 where account_id in (select account_id from account_usage limit 50)"
    )
    assert migrate(before) == ["0033_earlier_rows"]
    again = run(before, "select md5(array_agg(row(account_id, bytes) order by account_id)::text) from account_usage")
    assert again == counted
