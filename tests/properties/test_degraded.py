"""With Valkey unavailable and with Elasticsearch unavailable the API still is its document: no 5xx but a 503 that it
has, and that of searches alone; everything else responds as it does with both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from schemathesis import GenerationMode

from flows.indexing.new_builds import ensure_live_builds
from storage.settings import SearchSettings
from storage.stores import open_stores
from tests.platform_api.door import UNLIMITED, Door, register_starter, serving, upload
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.http.test_problems import assert_problem
from tests.platform_api.sending import a_sender, weights
from tests.properties.identities import three_identities
from tests.properties.seeds import AGAIN
from tests.properties.test_api import faults, operations_of

NOWHERE = "127.0.0.1:1"
VALKEY, ELASTICSEARCH = "valkey", "elasticsearch"


@contextmanager
def door_without(unavailable: tuple[str, ...], folder: Path, database_url: str, valkey_url: str) -> Iterator[Door]:
    """A door some of whose stores are unavailable."""
    valkey = f"redis://{NOWHERE}/0" if VALKEY in unavailable else valkey_url
    engine = f"http://{NOWHERE}" if ELASTICSEARCH in unavailable else ""
    search = SearchSettings(elasticsearch_url=SecretStr(engine), timeout_seconds=0.5)
    with serving(folder, database_url, valkey, search=search, limits=UNLIMITED) as door:
        register_starter(door.database)
        if not engine:
            with open_stores(door.settings) as stores:
                ensure_live_builds(stores)
        yield door


SEARCHING = frozenset({"GET /api/v1/search", "GET /api/v1/models"})
"""What asks the search engine; the second only for words."""


def still_responds(door: Door) -> None:
    """What a reader, an owner and a stranger do all day works with every store but Postgres and the blobs
    unavailable."""
    owner, nobody = door.client(), door.client("")
    made = publish(door, owner)
    content, sender = weights(1), a_sender(door)
    photos = upload(owner)
    job = owner.post("/api/v1/training-jobs", json={"dataSetId": photos["id"], "classWord": "mug"})
    draft = f"/api/v1/models/{sender.model_id}"
    begun = sender.begin(len(content))
    responses = [
        *(nobody.get(f"/api/v1/{path}") for path in LISTS),
        nobody.get(f"/api/v1/models/{made.model}"),
        nobody.get(f"/api/v1/model-versions/{made.version}"),
        nobody.get(f"/api/v1/model-versions/by-hash/{made.sha256}"),
        nobody.get(f"/api/download/models/{made.version}", follow_redirects=True),
        nobody.get(made.path, headers={"Range": "bytes=0-9"}),
        *(owner.get(f"/api/v1/{path}") for path in OWN),
        job,
        owner.get(job.headers["location"]),
        owner.post(f"{job.headers['location']}/cancel"),
        sender.send(begun, 0, content),
        owner.post(f"{draft}/publish"),
        nobody.get(draft),
        owner.patch(draft, json={"description": "in the dark"}),
        owner.post("/api/v1/comments", json={"entity": "model", "entityId": sender.model_id, "content": "still here"}),
        owner.put(f"/api/v1/reactions/model/{sender.model_id}/thumbs_up"),
        owner.post("/api/v1/keys", json={"name": "in the dark", "scopes": ["models:read"]}),
        owner.delete(draft),
        owner.delete(f"/api/v1/data-sets/{photos['id']}"),
    ]
    wrong = [
        f"{one.request.method} {one.request.url.path}: {one.status_code}" for one in responses if not one.is_success
    ]
    assert not wrong, "\n".join(wrong)
    assert nobody.get("/api/v1/models").json()["items"]
    assert nobody.get("/api/v1/me").status_code == 401


LISTS = ("models", "images", "creators", "tags", "users?query=o", "enums", "leaderboards")
OWN = ("me", "freshness", "keys", "data-sets", "training-jobs", "generations", "follows", "notifications")


def check(door: Door, examples: int) -> None:
    """Generated requests get responses that the document has; searches say when to come back, all others go on."""
    still_responds(door)
    # An owner and nobody: what is kept from another account is tests/properties/test_api.py.
    operations, identities = operations_of(door), three_identities(door)[::2]
    found: list[str] = []
    unavailable: set[str] = set()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        more, statuses = faults(door, operations, identities, mode, examples, stores_unavailable=True)
        found += more
        unavailable |= {label for label, seen in statuses.items() if seen[503]}
    assert not found, "\n\n".join([AGAIN, *found])
    searches = door.settings.search.elasticsearch_url.get_secret_value() != ""
    assert unavailable <= (SEARCHING if searches else set()), AGAIN
    client = door.client("")
    for path in ("/api/v1/search?q=mug", "/api/v1/models?query=mug"):
        if searches:
            assert int(client.get(path).headers["retry-after"]) > 0
            assert_problem(client.get(path), 503)
        else:
            assert client.get(path).status_code == 200
    still_responds(door)


def test_with_both_unavailable_no_input_gets_a_response_that_is_not_in_the_document(
    database_url: str, valkey_server: str, tmp_path: Path
) -> None:
    with door_without((VALKEY, ELASTICSEARCH), tmp_path, database_url, valkey_server) as door:
        check(door, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("unavailable", [VALKEY, ELASTICSEARCH])
def test_with_one_unavailable_at_full_size(
    unavailable: str, database_url: str, valkey_server: str, tmp_path: Path
) -> None:
    with door_without((unavailable,), tmp_path, database_url, valkey_server) as door:
        check(door, 200)
