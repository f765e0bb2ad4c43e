"""The tiny random model of tests of training, and stores for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from storage.settings import PostgresSettings, Settings
from storage.stores import Stores, open_stores
from tests.flows.jobs.conftest import tracked
from tests.flows.training.conftest import components, tiny_model

__all__ = ["components", "module_stores", "tiny_model", "tracked"]


@pytest.fixture(scope="module")
def module_stores(module_database_url: str) -> Iterator[Stores]:
    """Stores of which the database alone is there."""
    with open_stores(Settings(postgres=PostgresSettings(url=SecretStr(module_database_url)))) as opened:
        yield opened
