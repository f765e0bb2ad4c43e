"""The stores, for commands of the operator: they work on the database itself and need no key."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import psycopg

from storage.errors import PostgresUnavailable
from storage.settings import Settings
from storage.stores import Stores, open_stores

CONNECT_SECONDS = 3


@contextlib.contextmanager
def operator_stores(settings: Settings) -> Generator[Stores]:
    """The stores of these settings. Raises PostgresUnavailable at once when the platform is not up."""
    try:
        # A connection of its own first: the pool would wait 10 s for a platform that is not up.
        psycopg.connect(settings.postgres.url.get_secret_value(), connect_timeout=CONNECT_SECONDS).close()
    except psycopg.OperationalError as error:
        raise PostgresUnavailable(
            "the database does not respond. Is the platform up? Start it with: darkroom up --detach "
            f"(data folder {settings.data_folder})"
        ) from error
    with open_stores(settings) as stores:
        yield stores
