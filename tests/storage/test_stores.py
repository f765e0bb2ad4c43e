"""What opening stores wires together."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from storage.postgres.connection import Database, Query
from storage.postgres.upkeep import orphans
from storage.settings import PostgresSettings, RedisSettings, Settings
from storage.stores import open_async_stores, open_stores

WAITED = "select extract(epoch from now() - since)::int / 3600 as hours from orphans"
AGE = "update orphans set since = since - interval '5 hours'"


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr(database_url)),
        redis=RedisSettings(url=SecretStr(valkey_url)),
    )


def waited(database: Database) -> list[int]:
    """How long each orphan has waited, in hours."""
    return database.run(Query(WAITED, {}, lambda rows: [row["hours"] for row in rows]))


def test_a_flow_that_puts_orphans_again_has_them_wait_anew(settings: Settings) -> None:
    with open_stores(settings) as stores:
        blob = stores.blobs.put(b"a photo")
        stores.database.run(orphans.note([blob.sha256], 3600))
        stores.database.run(Query(AGE, {}, len))
        assert waited(stores.database) == [5]
        stores.blobs.put(b"a photo")
        assert waited(stores.database) == [0]


def test_the_api_does_too_from_its_threads_and_not_on_its_loop(settings: Settings) -> None:
    async def put_both_ways(database: Database) -> None:
        async with open_async_stores(settings) as stores:
            blob = await asyncio.to_thread(stores.blobs.put, b"a photo")
            await stores.database.run(orphans.note([blob.sha256], 3600))
            await stores.database.run(Query(AGE, {}, len))
            puts = (asyncio.to_thread(stores.blobs.put, b"a photo") for _ in range(20))
            await asyncio.gather(*puts)
            assert waited(database) == [0]
            with pytest.raises(RuntimeError, match="in a thread"):
                stores.blobs.put(b"a photo")

    with Database(settings.postgres) as database:
        asyncio.run(put_both_ways(database))
    assert os.listdir(settings.data_folder / "blobs" / ".incoming") == []
