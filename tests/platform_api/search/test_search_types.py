"""GET /search?type=image and type=creator: their shapes, filters and facets, checked against the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from flows.indexing.new_builds import ensure_live_builds
from flows.indexing.queue_drain import drain
from storage.postgres.accounts import accounts
from storage.postgres.catalog import models
from storage.postgres.connection import Query
from storage.records.catalog.vocabulary import ModelType
from storage.stores import Stores, open_stores
from tests.no_prefect import effects_without_prefect
from tests.platform_api.door import Door
from tests.storage.makers import a_published_model, an_image

SEARCH = "/api/v1/search"


@dataclass
class Gallery:
    """A door with two creators and four images."""

    client: httpx.Client
    stores: Stores

    def found(self, **query: Any) -> dict[str, Any]:
        """What a search returns."""
        response = self.client.get(SEARCH, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def follow(self) -> None:
        """What the relay and the sync flow do."""
        effects_without_prefect(self.stores).drain()
        drain(self.stores)


@pytest.fixture(scope="module")
def gallery(shared_door: Door) -> Iterator[Gallery]:
    """Ada shows three mugs with her LORA, one of them not for everybody; Bob shows one with his checkpoint."""
    with open_stores(shared_door.settings) as stores:
        database = stores.database
        hers = a_published_model(database, shared_door.account("ada"), "Ada's Mug", type=ModelType.LORA, tags=("cup",))
        his = a_published_model(database, shared_door.account("bob"), "Bob's Mug")
        an_image(database, hers, meta={"prompt": "a red mug on a desk"}, width=96, height=64)
        an_image(database, hers, meta={"prompt": "a blue mug"}, width=64, height=96)
        an_image(database, hers, meta={"prompt": "a bare mug"}, nsfw_level=8)
        an_image(database, his, meta={"prompt": "a red mug in the rain"})
        ensure_live_builds(stores)
        made = Gallery(shared_door.client(""), stores)
        made.follow()
        yield made


def prompts(response: dict[str, Any]) -> list[str]:
    return [item["meta"]["prompt"] for item in response["items"]]


def test_an_image_is_found_in_the_shape_of_the_list_of_images(gallery: Gallery) -> None:
    response = gallery.found(type="image", q="red desk")
    assert (response["type"], response["metadata"]["totalItems"]) == ("image", 1)
    [item] = response["items"]
    assert [item] == gallery.client.get("/api/v1/images", params={"imageId": item["id"]}).json()["items"]
    assert item["meta"] is None
    assert prompts(gallery.found(type="image", q="red desk", withMeta="true")) == ["a red mug on a desk"]


def test_images_are_filtered_counted_and_sorted(gallery: Gallery) -> None:
    asked = {"type": "image", "q": "mug", "withMeta": "true"}
    response = gallery.found(**asked, facets="shape,creator,type,tag", sort="largest")
    assert prompts(response) == ["a blue mug", "a red mug on a desk", "a red mug in the rain"]
    assert response["metadata"]["facets"] == {
        "shape": [{"value": shape, "count": 1} for shape in ("landscape", "portrait", "square")],
        "creator": [{"value": "ada", "count": 2}, {"value": "bob", "count": 1}],
        "type": [{"value": "LORA", "count": 2}, {"value": "Checkpoint", "count": 1}],
        "tag": [{"value": "cup", "count": 2}],
    }
    assert prompts(gallery.found(**asked, shapes="portrait")) == ["a blue mug"]
    assert prompts(gallery.found(**asked, minWidth=80)) == ["a red mug on a desk"]
    assert prompts(gallery.found(**asked, minWidth=60, minHeight=80)) == ["a blue mug"]
    assert prompts(gallery.found(**asked, usernames="Bob")) == ["a red mug in the rain"]
    assert prompts(gallery.found(**asked, browsingLevel=8)) == ["a bare mug"]
    assert gallery.found(**asked, nsfw=1)["metadata"]["totalItems"] == 4


def test_images_are_found_by_meaning(gallery: Gallery) -> None:
    response = gallery.found(type="image", q="wet weather", mode="semantic", withMeta="true", limit=1)
    assert prompts(response) == ["a red mug in the rain"]


def test_creators_are_found_in_the_shape_of_their_list(gallery: Gallery) -> None:
    response = gallery.found(type="creator", q="ad", facets="type,baseModel")
    assert (response["type"], [item["username"] for item in response["items"]]) == ("creator", ["ada"])
    assert response["items"] == gallery.client.get("/api/v1/creators", params={"query": "ad"}).json()["items"]
    assert response["metadata"]["facets"]["type"] == [{"value": "LORA", "count": 1}]
    assert [item["username"] for item in gallery.found(type="creator", types="Checkpoint")["items"]] == ["bob"]


def test_a_filter_that_a_type_does_not_have_is_named_and_a_wrong_order_refused(gallery: Gallery) -> None:
    response = gallery.client.get(SEARCH, params={"type": "creator", "q": "ada", "tags": "cup", "minWidth": 3})
    assert response.headers["X-Ignored-Parameters"] == "minWidth, tags"
    for asked in ({"type": "creator", "mode": "fused", "q": "a"}, {"type": "image", "sort": "downloaded"}):
        refused = gallery.client.get(SEARCH, params=asked)
        assert (refused.status_code, len(refused.json()["errors"])) == (422, 1)


def test_what_was_hidden_since_it_was_indexed_is_not_shown(gallery: Gallery) -> None:
    database = gallery.stores.database
    late = a_published_model(database, database.run(accounts.ensure_account("cyd")).id, "Cyd's Mug")
    an_image(database, late, meta={"prompt": "a chipped mug"})
    gallery.follow()
    image, creator = {"type": "image", "q": "chipped"}, {"type": "creator", "q": "cyd"}
    assert len(gallery.found(**image)["items"]) == len(gallery.found(**creator)["items"]) == 1
    database.run(models.unpublish(database.run(models.lock(late.id))))
    for asked in (image, creator):
        assert (gallery.found(**asked)["items"], gallery.found(**asked)["metadata"]["totalItems"]) == ([], 1)
    gallery.follow()
    assert gallery.found(**image)["metadata"]["totalItems"] == gallery.found(**creator)["metadata"]["totalItems"] == 0


def test_a_ban_and_a_new_name_reach_both(gallery: Gallery) -> None:
    database = gallery.stores.database
    database.run(Query("update accounts set name = 'robert' where name = 'bob' returning id", {}, len))
    gallery.follow()
    assert gallery.found(type="creator", q="bob")["items"] == []
    assert [item["username"] for item in gallery.found(type="image", q="rain", usernames="robert")["items"]] == [
        "robert"
    ]
    ban = "update accounts set status = 'banned', ban_reason = 'spam' where name = 'robert' returning id"
    database.run(Query(ban, {}, len))
    gallery.follow()
    for asked in ({"type": "creator", "q": "robert"}, {"type": "image", "q": "rain"}):
        assert gallery.found(**asked)["metadata"]["totalItems"] == 0


def test_the_document_states_one_shape_for_each_type(gallery: Gallery) -> None:
    document = gallery.client.get("/schema/openapi.json").json()
    response = document["paths"]["/api/v1/search"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    names = {reference["$ref"].rsplit("/", 1)[-1] for reference in response["oneOf"]}
    assert names == {"ModelsFound", "ImagesFound", "CreatorsFound"}
    tags = [document["components"]["schemas"][name]["properties"]["type"]["const"] for name in sorted(names)]
    assert tags == ["creator", "image", "model"]
