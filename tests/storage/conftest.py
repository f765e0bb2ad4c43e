"""A database with its scripts' runner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from storage.postgres.connection import Database
from storage.settings import PostgresSettings


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database."""
    with Database(PostgresSettings(url=SecretStr(database_url), pool_size=40)) as opened:
        yield opened
