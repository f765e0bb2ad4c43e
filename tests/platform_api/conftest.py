"""A running API over real stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform_api.door import Door, register_starter, serving


@pytest.fixture(scope="module")
def shared_door(
    module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """One door for a module whose tests do not disturb each other."""
    with serving(tmp_path_factory.mktemp("door"), module_database_url, valkey_server) as door:
        register_starter(door.database)
        yield door


@pytest.fixture
def door(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    """A door of one test alone."""
    with serving(tmp_path, database_url, valkey_url) as door:
        register_starter(door.database)
        yield door
