"""One API and one process of Node for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.platform_api.door import Door, serving
from tests.platform_api.orchestration.node_clients import node_clients
from tests.platform_api.orchestration.world import Plain, World, a_plain_world, a_world
from tests.storage.makers import an_account


@pytest.fixture(scope="module")
def world(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The API with its clients connected, for its owner."""
    folder = tmp_path_factory.mktemp("door")
    with serving(folder, module_database_url, valkey_server) as door, node_clients() as node:
        node.connect(door.url, door.key)
        yield a_world(door, node, an_account(door.database))


@pytest.fixture(scope="module")
def plain(shared_door: Door) -> Plain:
    """The API without Node, for its owner."""
    return a_plain_world(shared_door, shared_door.account_id)
