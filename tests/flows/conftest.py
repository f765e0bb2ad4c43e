"""Stores on real servers for flows' tests, and a Prefect server for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr

from storage.settings import JobSettings, PostgresSettings, RedisSettings, Settings
from storage.stores import Stores, open_stores


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    """Settings of a test's own stores, with a fast heartbeat."""
    return Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr(database_url)),
        redis=RedisSettings(url=SecretStr(valkey_url)),
        jobs=JobSettings(heartbeat_seconds=0.2, silent_after_seconds=1.0, relay_poll_seconds=0.2),
    )


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    """Open stores."""
    with open_stores(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect server of this session, on a database of its own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def prefect(prefect_server: None) -> Iterator[SyncPrefectClient]:
    """A client of that server."""
    with get_client(sync_client=True) as client:
        yield client
