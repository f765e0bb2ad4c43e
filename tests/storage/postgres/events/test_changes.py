"""What committed since a snapshot, and that nothing shown of a model changes without being among it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr

from storage.postgres.connection import Database, Query
from storage.postgres.events import changes
from storage.records.events.events import Lane
from storage.settings import PostgresSettings
from tests.storage.makers import a_model, a_published_model, a_version, an_account

NOT_SHOWN: dict[str, set[str]] = {
    # Derived: written by catalogue_settle itself, for what is watched. Counts have a trigger of their own.
    "models": {
        *(
            "id",
            "updated_at",
            "owner_active",
            "visible",
            "listed",
            "public_versions",
            "base_models",
            "nsfw_level",
            "last_version_at",
        ),
        *("revision", "settled_by", "image_changes", "creator_changes"),
    },
    "model_versions": {"id", "updated_at", "nsfw_level", "gone_reason"},
    "accounts": {"id", "number", "role", "ban_reason", "created_at", "changes"},
    "version_files": set(),
    "file_hashes": set(),
    "images": set(),
    "model_tags": set(),
    "model_stats": set(),
    "version_stats": set(),
}
"""Columns that no response shows, or that change only together with one that is watched."""

_UNWATCHED = """
select attribute.attname as name
  from pg_attribute attribute
 where attribute.attrelid = %(table)s::regclass and attribute.attnum > 0 and not attribute.attisdropped
   and not exists (
       select from pg_trigger watching join pg_proc function on function.oid = watching.tgfoid
        where watching.tgrelid = attribute.attrelid and watching.tgtype & 16 <> 0
          and function.proname in ('catalogue_touched', 'catalogue_hashed', 'catalogue_counted',
                                   'catalogue_versions_counted')
          and (cardinality(watching.tgattr::int2[]) = 0 or attribute.attnum = any(watching.tgattr::int2[])))
"""


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


def test_every_column_that_is_shown_is_watched(database: Database) -> None:
    for table, not_shown in NOT_SHOWN.items():
        rows = database.run(Query(_UNWATCHED, {"table": table}, lambda rows: [str(row["name"]) for row in rows]))
        unwatched = set(rows) - not_shown
        assert not unwatched, f"cached responses would not notice a change of {table}: a settling trigger must"


def test_what_commits_out_of_order_is_told_once_and_what_is_rolled_back_never(
    database: Database, module_database_url: str
) -> None:
    account = an_account(database)
    first, second = (a_published_model(database, account, name) for name in ("first", "second"))
    change = "update models set description = 'changed' where id = %s"
    began = database.run(changes.since(None, 10))
    assert began.events == ()
    with psycopg.connect(module_database_url) as slow, psycopg.connect(module_database_url) as lost:
        slow.execute(change, (first.id,))
        lost.execute("select pg_current_xact_id()")
        with psycopg.connect(module_database_url) as quick:
            quick.execute(change, (second.id,))
        between = database.run(changes.since(began.snapshot, 10))
        assert [event.model_ids for event in between.events] == [(second.id,)]
        lost.execute("update models set name = 'lost' where id = %s", (second.id,))
        lost.rollback()
        slow.commit()
    after = database.run(changes.since(between.snapshot, 10))
    assert [event.model_ids for event in after.events] == [(first.id,)]
    assert database.run(changes.since(after.snapshot, 10)).events == ()
    assert len(database.run(changes.since(began.snapshot, 1)).events) == 1


def test_counts_of_versions_and_hashes_of_files_are_told_too(database: Database) -> None:
    model = a_model(database, an_account(database), "counted")
    version = a_version(database, model)
    seen = database.run(changes.since(None, 10))
    told: list[tuple[Lane, ...]] = []
    for statement in (
        "insert into version_stats (version_id, download_count) values (%(id)s, 1)",
        "update version_stats set download_count = 2 where version_id = %(id)s",
        "update file_hashes set hash = '00000000' where kind = 'CRC32' and file_id in"
        " (select id from version_files where version_id = %(id)s)",
        "update model_versions set registered_as = 'a/1' where id = %(id)s",
        "update model_versions set registered_as = 'a/1' where id = %(id)s",
    ):
        database.run(Query(statement, {"id": version.id}, len))
        seen = database.run(changes.since(seen.snapshot, 10))
        told.append(tuple(event.lane for event in seen.events))
    assert told == [(Lane.COUNTS,), (Lane.COUNTS,), (Lane.EDITS,), (Lane.EDITS,), ()]


def test_counts_of_a_model_and_its_versions_in_one_transaction_are_one_change(database: Database) -> None:
    model = a_model(database, an_account(database), "counted twice")
    version = a_version(database, model)
    began = database.run(changes.since(None, 10))
    both = (
        "with counted as (insert into model_stats (model_id, download_count) values (%(model)s, 1) returning model_id)"
        " select model_id from counted"
    )

    def script():
        yield from Query(both, {"model": model.id}, len)
        yield from Query("insert into version_stats (version_id) values (%(id)s)", {"id": version.id}, len)

    database.run(script())
    assert [event.lane for event in database.run(changes.since(began.snapshot, 10)).events] == [Lane.COUNTS]
