"""The schema of Postgres, brought up to date file by file."""

from __future__ import annotations

from pathlib import Path

import psycopg

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6461726B


def migrate(url: str) -> list[str]:
    """Bring the database at `url` to the newest schema; gives the names of the migrations that ran.

    Each file runs once, in its own transaction, under one advisory lock, so that several starters do no harm.
    """
    ran: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute(
            "create table if not exists schema_migrations (name text primary key, ran_at timestamptz default now())"
        )
        done = {row[0] for row in connection.execute("select name from schema_migrations")}
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if file.stem in done:
                continue
            with connection.transaction():
                connection.execute(file.read_text())  # pyright: ignore[reportArgumentType, reportCallIssue]
                connection.execute("insert into schema_migrations (name) values (%s)", (file.stem,))
            ran.append(file.stem)
        # A database restored into another cluster: its lists must not compare transaction numbers of both.
        connection.execute("select catalogue_moved_in()")
    return ran
