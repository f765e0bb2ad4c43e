"""A database as an earlier release left it: its schema, and rows of then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.migrating import MIGRATIONS, migrate
from tests.conftest import fresh_database


@contextmanager
def earlier_database(server: EmbeddedPostgres, folder: Path, *, last: str, rows: str) -> Iterator[str]:
    """The URL of a database with the migrations up to number `last` alone, and with what the statements `rows` insert.

    folder: an empty one, for copies of those migrations.
    """
    for file in MIGRATIONS.glob("*.sql"):
        if file.name[:4] <= last:
            shutil.copy(file, folder)
    with fresh_database(server, "template1") as url:
        migrate(url, folder=folder)
        with psycopg.connect(url) as connection:
            connection.execute(rows.encode())
        yield url
