"""The mark of a database outside the data folder that `darkroom restore` fills.

It comes before the first row and goes when the data folder has its name. A restore that died leaves it: nothing starts
on such a database (storage/postgres/migrating.py), and the next restore empties it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from deployments.restore.folder_mark import BESIDE, MARK, take_mark
from flows.upkeep.backup.manifest import DARKROOM, MLFLOW, PREFECT
from storage.errors import StoreUnavailable
from storage.postgres.migrating import RESTORING
from storage.settings import Settings

CONNECT_SECONDS = 5
_MARKED = "select to_regclass(%s) is not null"
_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"


@contextmanager
def connected(name: str, url: str) -> Generator[psycopg.Connection]:
    """A connection to a database, one transaction. Raises StoreUnavailable with its name."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"{name}'s database does not respond: {str(error).strip()}") from error


def is_marked(connection: psycopg.Connection) -> bool:
    """Whether a restore has begun to fill it and has not ended."""
    return connection.execute(_MARKED, (RESTORING,)).fetchone() == (True,)


def mark(name: str, url: str) -> None:
    """Mark a database. One that is marked already is emptied first. Raises StoreUnavailable."""
    with connected(name, url) as connection:
        if is_marked(connection):
            for [schema] in connection.execute(_SCHEMAS).fetchall():
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
            # As a new database has it; the dump expects it to be there.
            connection.execute("create schema public; grant usage on schema public to public")
        connection.execute(sql.SQL("create table {} ()").format(sql.Identifier(*RESTORING.split("."))))


def databases(settings: Settings) -> dict[str, str]:
    """psycopg URL by name of a platform's databases; empty for one that has no place."""
    backup = settings.backup
    return {
        MLFLOW: backup.mlflow_database.get_secret_value(),
        PREFECT: backup.prefect_database.get_secret_value(),
        DARKROOM: settings.postgres.url.get_secret_value(),
    }


def outside(settings: Settings) -> list[tuple[str, str]]:
    """Name and psycopg URL of the databases that are not in the data folder."""
    embedded = settings.embedded_postgres_url
    return [(name, url) for name, url in databases(settings).items() if url and url != embedded(name)]


def finish(settings: Settings) -> None:
    """Do what a restore does last of all, for one that was stopped there. Raises BackupRefused, StoreUnavailable."""
    if (settings.data_folder / MARK).exists() and not settings.data_folder.name.endswith(BESIDE):
        unmark(settings)
    take_mark(settings.data_folder)


def unmark(settings: Settings) -> None:
    """Take the marks of a restore that has ended. Raises StoreUnavailable."""
    for name, url in outside(settings):
        with connected(name, url) as connection:
            connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(*RESTORING.split("."))))
