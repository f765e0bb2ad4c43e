"""Data sets that jobs use."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.errors import (
    InUse,
    NotFound,
)
from storage.postgres.connection import Database
from storage.postgres.jobs import data_sets, job_files, jobs
from storage.postgres.migrating import migrate
from storage.records.jobs.jobs import JobFileRole
from tests.storage.makers import a_job
from tests.storage.postgres.earlier_schema import earlier_database

DELETED_BEFORE = """
insert into accounts (name) values ('owner');
insert into data_sets (account_id, name, content_hash, deleted_at)
select id, fate, repeat('a', 64), deleted_at
  from accounts cross join (values ('deleted', now()), ('kept', null)) as made (fate, deleted_at);
insert into jobs (account_id, kind, request, recipe_hash, state, ended_at, data_set_id)
select account_id, 'training', '{}', data_sets.name, 'succeeded', now(), data_sets.id
  from data_sets cross join generate_series(1, 150);
insert into job_files (job_id, name, role, sha256, size, media_type)
select id, role, role, recipe_hash || role, 7, 'image/png'
  from jobs cross join (values ('grid'), ('sample')) as made (role);
"""


def test_a_data_set_in_use_is_not_deleted(database: Database) -> None:
    job = a_job(database)
    assert job.data_set_id is not None
    with pytest.raises(InUse, match=str(job.id)):
        database.run(data_sets.delete(job.data_set_id, job.account_id))
    database.run(jobs.cancel(job.id, job.account_id))
    assert len(database.run(data_sets.delete(job.data_set_id, job.account_id))) == 2
    with pytest.raises(NotFound):
        database.run(data_sets.get(job.data_set_id, job.account_id))


def test_the_grids_that_show_its_photos_go_with_a_data_set(database: Database) -> None:
    job, other = a_job(database), a_job(database)
    for one in (job, other):
        database.run(jobs.claim(one.id, 1, None))
        for name, role in (("grid.png", JobFileRole.GRID), ("sample.png", JobFileRole.SAMPLE)):
            facts = {"sha256": name, "size": 1, "media_type": "image/png"}
            database.run(job_files.put_file(one.id, 1, name=name, role=role, **facts))
        database.run(jobs.succeed(one.id, 1, None))
    assert job.data_set_id is not None
    assert "grid.png" in database.run(data_sets.delete(job.data_set_id, job.account_id))
    left = [[file.name for file in database.run(job_files.files(one.id))] for one in (job, other)]
    assert left == [["sample.png"], ["grid.png", "sample.png"]]


def test_grids_of_data_sets_that_were_deleted_before_go_too(postgres_server: EmbeddedPostgres, tmp_path: Path) -> None:
    with earlier_database(postgres_server, tmp_path, last="0044", rows=DELETED_BEFORE) as url:
        migrate(url)
        with psycopg.connect(url) as connection:
            left = connection.execute(
                "select sha256, count(*) from job_files group by sha256 order by sha256"
            ).fetchall()
            held = connection.execute("select bytes from account_usage").fetchall()
    assert left == [("deletedsample", 150), ("keptgrid", 150), ("keptsample", 150)]
    assert held == [(450 * 7,)]
