"""Stores on real servers for flows' tests, and a Prefect server for the whole session."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr

from deployments.local.environment import settings_environment
from deployments.local.parts import mlflow_server
from deployments.local.seed import with_own_keys
from deployments.local.servers.postgres import EmbeddedPostgres
from flows.jobs.tracking import tracking_client
from storage.settings import JobSettings, MlflowSettings, PostgresSettings, RedisSettings, Settings
from storage.stores import Stores, open_stores
from tests.conftest import free_port

MLFLOW_PAGES = "https://mlflow.internal.example.org"
"""Where a proxy publishes the pages of the tests' MLflow."""


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


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What opens the same stores in another process; also set in this one, for flows and commands."""
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


PREFECT_RUNS = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """A real Prefect server of this session, on a database of its own; the same one wherever this is imported."""
    if request.config.stash.get(PREFECT_RUNS, False):
        yield
        return
    with prefect_test_harness(server_startup_timeout=120):
        request.config.stash[PREFECT_RUNS] = True
        yield
    request.config.stash[PREFECT_RUNS] = False


@pytest.fixture
def prefect(prefect_server: None) -> Iterator[SyncPrefectClient]:
    """A client of that server."""
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="session")
def mlflow_settings(postgres_server: EmbeddedPostgres, memory_folder: Path) -> Iterator[MlflowSettings]:
    """A real MLflow server of this session, started as the embedded platform starts it; this process may sign in."""
    settings = with_own_keys(
        # Where an embedded platform of that data folder has its Postgres.
        Settings(data_folder=memory_folder, mlflow=MlflowSettings(port=free_port(), ui_url=MLFLOW_PAGES))
    )
    postgres_server.create_databases(["mlflow"])
    part = mlflow_server(settings)
    part.before_start()
    process = subprocess.Popen(part.command, env=dict(part.environment), start_new_session=True)
    deadline = time.monotonic() + 120
    while not part.healthy(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("MLflow did not start.")
        time.sleep(0.2)
    tracking_client(settings)
    yield settings.mlflow
    process.terminate()
    process.wait(timeout=20)
