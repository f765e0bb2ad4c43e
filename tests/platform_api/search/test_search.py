"""GET /search: words, meaning, filters, facets and pages, checked against the rows before they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from flows.indexing.new_builds import ensure_live_builds
from flows.indexing.queue_drain import drain
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Database, Query
from storage.settings import SearchSettings
from storage.stores import Stores, open_stores
from tests.no_prefect import effects_without_prefect
from tests.platform_api.door import Door, serving
from tests.storage.makers import a_model, a_published_model, a_version

SEARCH = "/api/v1/search"


@pytest.fixture(scope="module")
def stores(shared_door: Door) -> Iterator[Stores]:
    """The flows' view of the door's stores."""
    with open_stores(shared_door.settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(shared_door: Door, stores: Stores) -> httpx.Client:
    """A client without a key, and thirty cats, a red dress and a hidden thing to find."""
    owner = shared_door.account("felix")
    for number in range(30):
        a_published_model(stores.database, owner, f"Cat {number}", tags=("animal",))
    dress = a_model(stores.database, owner, "Red Dress", tags=("fashion",), nsfw=True)
    a_version(stores.database, dress, base_model="SDXL 1.0")
    stores.database.run(models.publish(dress))
    kitchen = a_published_model(stores.database, owner, "Sofa", description="A kitten sleeps on it.")
    a_model(stores.database, owner, "Cat of tomorrow")
    assert kitchen.listed
    ensure_live_builds(stores)
    follow(stores)
    return shared_door.client("")


def follow(stores: Stores) -> None:
    """What the relay and the sync flow do."""
    effects_without_prefect(stores).drain()
    drain(stores)


def found(client: httpx.Client, **query: Any) -> dict[str, Any]:
    response = client.get(SEARCH, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def names(response: dict[str, Any]) -> list[str]:
    return [item["name"] for item in response["items"]]


def test_words_find_models_in_the_shape_of_the_catalogue(client: httpx.Client) -> None:
    response = found(client, q="cat 7")
    assert names(response) == ["Cat 7"]
    assert response["metadata"] == {"totalItems": 1, "facets": {}, "degraded": []}
    [item] = response["items"]
    assert item == client.get(f"/api/v1/models/{item['id']}").json() | {"modelVersions": item["modelVersions"]}


def test_facets_and_totals_are_exact(client: httpx.Client) -> None:
    asked = {"nsfw": "true", "facets": "type,tag,baseModel,creator", "limit": 1, "tags": "animal"}
    metadata = found(client, **asked)["metadata"]
    assert metadata["totalItems"] == 30
    assert metadata["facets"]["tag"] == [{"value": "animal", "count": 30}, {"value": "fashion", "count": 1}]
    assert metadata["facets"]["creator"] == [{"value": "felix", "count": 30}]
    assert metadata["facets"]["baseModel"] == [{"value": "SD 1.5", "count": 30}]


def test_levels_hide_what_is_not_for_everybody(client: httpx.Client) -> None:
    assert names(found(client, q="red dress")) == []
    assert names(found(client, q="red dress", nsfw="true")) == ["Red Dress"]
    assert names(found(client, q="red dress", browsingLevel=4)) == ["Red Dress"]
    assert found(client, q="red dress", baseModels="SDXL 1.0,Pony", nsfw=1)["metadata"]["totalItems"] == 1


def test_pages_are_one_window_whatever_changes_meanwhile(client: httpx.Client, stores: Stores) -> None:
    whole = names(found(client, q="cat", sort="newest", limit=100))
    page = found(client, q="cat", sort="newest", limit=8)
    late = a_published_model(stores.database, stores.database.run(accounts.ensure_account("felix")).id, "Cat late")
    hidden = next(item for item in found(client, q=whole[20])["items"] if item["name"] == whole[20])
    model = stores.database.run(catalog.model_by_id(hidden["id"]))
    stores.database.run(models.unpublish(model))
    follow(stores)
    seen = names(page)
    while "nextPage" in page["metadata"]:
        page = found(client, q="cat", sort="newest", limit=8, cursor=page["metadata"]["nextCursor"])
        seen += names(page)
    assert seen == [name for name in whole if name != model.name]
    stores.database.run(models.delete(stores.database.run(models.lock(late.id)), "test"))
    stores.database.run(models.publish(stores.database.run(models.lock(model.id))))
    follow(stores)


def test_the_next_page_is_an_address(client: httpx.Client) -> None:
    metadata = found(client, q="cat", limit=10, nsfw="true")["metadata"]
    assert metadata["nextPage"].startswith("http")
    query = httpx.URL(metadata["nextPage"]).params
    assert {**query} == {"q": "cat", "limit": "10", "nsfw": "true", "cursor": metadata["nextCursor"]}


def test_what_is_hidden_is_not_shown_though_the_index_has_it(client: httpx.Client, stores: Stores) -> None:
    [item] = found(client, q="sofa")["items"]
    model = stores.database.run(catalog.model_by_id(item["id"]))
    stores.database.run(models.unpublish(model))
    assert names(found(client, q="sofa")) == []
    stores.database.run(models.publish(stores.database.run(models.lock(model.id))))
    follow(stores)
    assert names(found(client, q="sofa")) == ["Sofa"]


def test_meaning_is_searched_and_fused(client: httpx.Client) -> None:
    semantic = found(client, q="young feline on a couch", mode="semantic", limit=3)
    assert names(semantic)[0] == "Sofa"
    assert semantic["metadata"]["totalItems"] == 31
    fused = found(client, q="kitten", mode="fused", limit=3)
    assert names(fused)[0] == "Sofa"
    assert fused["metadata"]["degraded"] == []


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"q": "x" * 1001}, 422, "query"),
        ({"q": " ".join(f"w{number}" for number in range(30))}, 422, "query"),
        ({"mode": "semantic"}, 422, "query"),
        ({"mode": "guess"}, 422, "mode"),
        ({"type": "article"}, 422, "type"),
        ({"q": "cat", "mode": "fused", "sort": "newest"}, 422, "sort"),
        ({"publishedFrom": "yesterday"}, 422, "publishedFrom"),
        ({"q": "a\x00b"}, 422, "q"),
        ({"limit": 101}, 422, "limit"),
        ({"facets": "colour"}, 422, "facets"),
        ({"cursor": "abc"}, 400, None),
        ({"cursor": "bm90LWEtdXVpZHwxMA"}, 400, None),
    ],
)
def test_a_search_that_cannot_be_carried_out_says_why(
    client: httpx.Client, query: dict[str, Any], status: int, field: str | None
) -> None:
    response = client.get(SEARCH, params=query)
    assert response.status_code == status, response.text
    assert field is None or field in response.json()["errors"]


def test_a_cursor_belongs_to_its_search_and_expires(client: httpx.Client, stores: Stores) -> None:
    cursor = found(client, q="cat", limit=5)["metadata"]["nextCursor"]
    other = client.get(SEARCH, params={"q": "dog", "limit": 5, "cursor": cursor})
    assert (other.status_code, other.json()["code"]) == (400, "invalid_cursor")
    stores.database.run(Query("update search_windows set created_at = now() - interval '11 minutes'", {}, len))
    late = client.get(SEARCH, params={"q": "cat", "limit": 5, "cursor": cursor})
    assert (late.status_code, late.json()["code"]) == (400, "cursor_expired")


def test_an_unknown_parameter_is_named(client: httpx.Client) -> None:
    assert client.get(SEARCH, params={"q": "cat", "colour": "red"}).headers["X-Ignored-Parameters"] == "colour"


def test_health_says_how_far_searches_are_behind(client: httpx.Client, stores: Stores) -> None:
    assert client.get("/health").json()["parts"]["search"] == {
        "state": "ok",
        "waiting": 0,
        "oldestSeconds": 0,
        "oldestCountsSeconds": 0,
        "deadLetters": 0,
    }


@pytest.fixture
def lost_door(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    """A door whose Elasticsearch is unavailable."""
    search = SearchSettings(elasticsearch_url=SecretStr("http://127.0.0.1:9"))
    with serving(tmp_path, database_url, valkey_url, search=search) as door:
        yield door


def test_while_the_engine_is_unavailable_searches_return_503_and_lists_go_on(lost_door: Door) -> None:
    client = lost_door.client("")
    with Database(lost_door.settings.postgres) as database:
        a_published_model(database, lost_door.account(), "mug")
    response = client.get(SEARCH, params={"q": "mug"})
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "5"
    assert names(client.get("/api/v1/models").json()) == ["mug"]
    health = client.get("/health").json()
    assert (health["status"], health["parts"]["search"]["state"]) == ("degraded", "unavailable")


def test_without_an_index_a_search_returns_503_not_nothing(door: Door) -> None:
    response = door.client("").get(SEARCH, params={"q": "mug"})
    assert response.status_code == 503
    assert "darkroom rebuild models" in response.json()["detail"]


def test_the_list_of_models_is_searched_by_query(client: httpx.Client) -> None:
    page = client.get("/api/v1/models", params={"query": "cat", "limit": 20, "tag": "animal", "page": ""})
    assert page.status_code == 200, page.text
    assert names(page.json()) == names(found(client, q="cat", limit=20, tags="animal"))
    rest = client.get(page.json()["metadata"]["nextPage"].replace("http://127.0.0.1:8000", str(client.base_url)))
    assert len(names(page.json()) + names(rest.json())) == 30
    oldest = client.get("/api/v1/models", params={"query": "cat", "sort": "Oldest", "limit": 1, "period": "Year"})
    assert names(oldest.json()) == ["Cat 0"]
    assert names(client.get("/api/v1/models", params={"query": "red dress"}).json()) == []
    assert names(client.get("/api/v1/models", params={"query": "red dress", "nsfw": "true"}).json()) == ["Red Dress"]


def test_a_search_of_the_list_names_what_it_cannot_filter_by(client: httpx.Client) -> None:
    response = client.get("/api/v1/models", params={"query": "cat", "fileFormats": "SafeTensor", "favorites": "true"})
    assert response.headers["X-Ignored-Parameters"] == "favorites, fileFormats"
    assert client.get("/api/v1/models", params={"query": "cat", "page": 2}).status_code == 422
