"""With Valkey away and with Elasticsearch away the API still is its document: no 5xx but a 503 that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from schemathesis import GenerationMode

from storage.search.builds import ensure_live_builds
from storage.settings import SearchSettings
from storage.stores import open_stores
from tests.platform_api.door import UNLIMITED, Door, register_starter, serving
from tests.platform_api.test_downloads import publish
from tests.platform_api.test_problems import assert_problem
from tests.properties.test_api import faults, operations_of

NOWHERE = "127.0.0.1:1"
VALKEY, ELASTICSEARCH = "valkey", "elasticsearch"


@contextmanager
def door_without(away: tuple[str, ...], folder: Path, database_url: str, valkey_url: str) -> Iterator[Door]:
    """A door some of whose stores are away."""
    valkey = f"redis://{NOWHERE}/0" if VALKEY in away else valkey_url
    engine = f"http://{NOWHERE}" if ELASTICSEARCH in away else ""
    search = SearchSettings(elasticsearch_url=SecretStr(engine), timeout_seconds=0.5)
    with serving(folder, database_url, valkey, search=search, limits=UNLIMITED) as door:
        register_starter(door.database)
        publish(door, door.client())
        if not engine:
            with open_stores(door.settings) as stores:
                ensure_live_builds(stores)
        yield door


def check(door: Door, examples: int) -> None:
    """Generated requests get answers that the document has; searches say when to come back, lists go on."""
    operations, found = operations_of(door), list[str]()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        found += faults(door, operations, mode, examples, stores_away=True)
    assert not found, "\n\n".join(found)
    publish(door, door.client())  # what was there may have been deleted
    client = door.client("")
    assert client.get("/api/v1/models").json()["items"]
    for path in ("/api/v1/search?q=mug", "/api/v1/models?query=mug"):
        if door.settings.search.elasticsearch_url.get_secret_value():
            assert int(client.get(path).headers["retry-after"]) > 0
            assert_problem(client.get(path), 503)
        else:
            assert client.get(path).status_code == 200


def test_with_both_away_no_input_gets_an_answer_that_is_not_in_the_document(
    database_url: str, valkey_server: str, tmp_path: Path
) -> None:
    with door_without((VALKEY, ELASTICSEARCH), tmp_path, database_url, valkey_server) as door:
        check(door, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("away", [VALKEY, ELASTICSEARCH])
def test_with_one_away_at_full_size(away: str, database_url: str, valkey_server: str, tmp_path: Path) -> None:
    with door_without((away,), tmp_path, database_url, valkey_server) as door:
        check(door, 200)
