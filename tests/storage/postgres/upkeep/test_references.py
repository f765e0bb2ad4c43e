"""Every column of the schema that names bytes of the blob store is asked before bytes are deleted."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from storage.postgres.connection import Database, Query
from storage.postgres.upkeep import references

BYTES = {
    "base_model_files.sha256",
    "data_set_images.sha256",
    "images.sha256",
    "job_checkpoints.sha256",
    "job_files.sha256",
    "job_stage_blobs.sha256",
    "sampled_images.sha256",
    "source_pictures.sha256",
    "version_files.sha256",
    "workflow_sources.sha256",
}

NO_BYTES = {
    "api_keys.secret_hash": "of a key's secret",
    "base_models.folder_hash": "over the hashes of a folder's files",
    "data_sets.content_hash": "over the hashes of the images",
    "file_hashes.hash": "by which tools look a file up; its bytes are those of version_files",
    "idempotency_keys.request_hash": "of a request",
    "images.blurhash": "a picture in a few characters",
    "jobs.recipe_hash": "of a recipe",
    "model_uploads.expected_sha256": "what a sender says before its bytes are whole",
    "orphans.sha256": "bytes that no row names",
    "sampled_images.recipe_hash": "of a recipe",
    "search_vectors.text_hash": "of a text",
    "sampled_sets.recipe_hash": "of a recipe",
    "workflows.request_hash": "of a request",
}

VALUES = {
    "text": "'x'",
    "jsonb": "'{}'",
    "uuid": "gen_random_uuid()",
    "integer": "1",
    "bigint": "1",
    "boolean": "false",
    "timestamp with time zone": "now()",
}
"""Something for a column that must not be null."""

SHA256 = "ab" * 32


@pytest.fixture
def lax(database: Database, database_url: str) -> Iterator[psycopg.Connection[DictRow]]:
    """A connection to a schema that checks nothing, so that any row goes into any table."""
    with psycopg.Connection[DictRow].connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set session_replication_role = replica")
        for row in connection.execute(
            "select conrelid::regclass::text as held, conname as called from pg_constraint"
            " where contype in ('c', 'f') and connamespace = 'public'::regnamespace and conrelid <> 0"
        ).fetchall():
            drop = f'alter table {row["held"]} drop constraint if exists "{row["called"]}" cascade'
            connection.execute(drop.encode())
        yield connection


def columns(connection: psycopg.Connection[DictRow], condition: str) -> list[dict[str, object]]:
    return connection.execute(
        "select table_name, column_name, data_type from information_schema.columns"
        f" where table_schema = 'public' and {condition} order by 1, 2".encode()
    ).fetchall()


def a_row(connection: psycopg.Connection[DictRow], table: str, column: str) -> None:
    needed = columns(
        connection, f"table_name = '{table}' and is_nullable = 'NO' and column_default is null and is_identity = 'NO'"
    )
    values = {str(one["column_name"]): VALUES[str(one["data_type"])] for one in needed} | {column: f"'{SHA256}'"}
    insert = f"insert into {table} ({', '.join(values)}) values ({', '.join(values.values())})"
    connection.execute(insert.encode())


def test_every_column_with_a_hash_names_bytes_or_says_why_not(lax: psycopg.Connection[DictRow]) -> None:
    found = columns(lax, "(column_name ~ 'sha256|hash|digest|blob')")
    places = {f"{one['table_name']}.{one['column_name']}" for one in found}
    assert places == BYTES | set(NO_BYTES)


def test_what_a_row_names_is_named(database: Database, lax: psycopg.Connection[DictRow]) -> None:
    for place in sorted(BYTES):
        table, column = place.split(".")
        a_row(lax, table, column)
        assert database.run(references.referenced([SHA256, "cd" * 32])) == [SHA256], place
        assert [found for found, _ in references.pages(database.run, "ab", "ac", 10)] == [SHA256], place
        assert len(database.run(references.naming(SHA256))) == 1, place
        if columns(lax, f"table_name = '{table}' and column_name = 'gone_at'"):
            lax.execute(f"update {table} set gone_at = now()".encode())
        else:
            lax.execute(f"delete from {table}".encode())
        assert database.run(references.referenced([SHA256])) == [], place
        assert database.run(references.naming(SHA256)) == [], place
        assert list(references.pages(database.run, "", references.BEHIND, 10)) == [], place


def test_pages_give_every_hash_once_and_in_order(database: Database, lax: psycopg.Connection[DictRow]) -> None:
    hashes = [f"{number:064x}" for number in range(100)]
    for place in sorted(BYTES):
        table = place.split(".")[0]
        a_row(lax, table, "sha256")
        lax.execute(f"update {table} set sha256 = 'x'".encode())
    for number, sha256 in enumerate(hashes):
        # In one table or in several, in some more than once.
        for table in ("job_files", "job_checkpoints")[: 1 + number % 2]:
            keys = "name" if table == "job_files" else "step"
            for again in range(1 + number % 3):
                lax.execute(
                    f"insert into {table} select (jsonb_populate_record(one, jsonb_build_object('sha256', %s::text,"
                    f" '{keys}', %s::int))).* from {table} one where sha256 = 'x'".encode(),
                    (sha256, number * 10 + again),
                )
    for size in (1, 7, 1000):
        pages: list[dict[str, int]] = []

        def ask(query: Query[dict[str, int]], pages: list[dict[str, int]] = pages) -> dict[str, int]:
            pages.append(database.run(query))
            return pages[-1]

        found = [sha256 for sha256, _ in references.pages(ask, "", references.BEHIND, size)]
        assert found == hashes
        assert max(len(page) for page in pages) <= size
