"""The command line pointed at a test's own API and stores."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.records.accounts.accounts import Scope
from tests.deployments.line import Line, Worker
from tests.flows.conftest import mlflow_settings, prefect_server
from tests.platform_api.door import Door, register_starter, serving

__all__ = ["line", "mlflow_settings", "prefect_server", "served"]


@pytest.fixture(scope="module")
def served(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One running API for a module."""
    with serving(tmp_path_factory.mktemp("served"), module_database_url, valkey_server) as door:
        register_starter(door.database)
        yield door


@pytest.fixture
def line(served: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line with a running API and an account of the test's own, in an empty folder."""
    name = uuid.uuid4().hex
    door = dataclasses.replace(served, account_id=served.account(name), key=served.new_key(*Scope, account=name))
    for setting, value in {
        "DATA_FOLDER": str(door.settings.data_folder),
        "POSTGRES__URL": door.settings.postgres.url.get_secret_value(),
        "REDIS__URL": door.settings.redis.url.get_secret_value(),
        "API__PUBLIC_URL": door.url,
        "API__KEY": door.key,
    }.items():
        monkeypatch.setenv(f"DARKROOM_{setting}", value)
    monkeypatch.chdir(tmp_path)
    return Line(door, Worker(door), tmp_path)
