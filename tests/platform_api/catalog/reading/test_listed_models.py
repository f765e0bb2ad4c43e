"""The list of models: lenient queries and whole pages."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx

from tests.platform_api.catalog.reading.shelf import Shelf, put
from tests.platform_api.http.test_problems import assert_problem


def test_every_style_of_lists_and_booleans_is_read(shelf: Shelf) -> None:
    for query in (
        "types=LORA&types=Checkpoint",
        "types=LORA,Checkpoint",
        "types[]=Checkpoint",
        "type=checkpoint",
        "baseModels=SD 1.5,Pony",
        "tag=Style",
        "tagname=style",
        "username=OWNER",
        "nsfw=true",
        "nsfw=False",
        "nsfw=0",
        "allowCommercialUse=Sell",
        "allowNoCredit=1",
        "fileFormats=SafeTensor",
        f"ids=1,{shelf.model.id}",
        f"modelVersionIds={shelf.version.id}",
        "browsingLevel=1",
        "period=Day",
    ):
        response = shelf.get(f"/api/v1/models?{query}")
        assert shelf.model.id in [item["id"] for item in response.json()["items"]], query
        assert "x-ignored-parameters" not in response.headers
    for query in (
        "types=LORA",
        "baseModels=Pony",
        "tag=none",
        "username=nobody",
        "browsingLevel=8",
        "fileFormats=GGUF",
    ):
        assert shelf.get(f"/api/v1/models?{query}").json()["items"] == [], query


def test_what_is_not_known_is_named_and_what_is_wrong_is_refused(shelf: Shelf) -> None:
    response = shelf.get("/api/v1/models?colour=red&rating=5")
    assert response.headers["x-ignored-parameters"] == "colour, rating"
    for query, status, code in (
        ("types=Sculpture", 422, "invalid_request"),
        ("limit=101", 422, "invalid_request"),
        ("limit=-1", 422, "invalid_request"),
        ("nsfw=maybe", 422, "invalid_request"),
        ("tag=%00", 422, "invalid_request"),
        ("tag=a&tag=b", 422, "invalid_request"),
        ("page=11&limit=100", 400, "too_many_pages"),
        ("cursor=zzz", 400, "invalid_cursor"),
        ("cursor=%C3%A9", 400, "invalid_cursor"),
        ("favorites=true", 401, "unauthenticated"),
        ("hidden=false", 401, "unauthenticated"),
    ):
        assert assert_problem(shelf.get(f"/api/v1/models?{query}"), status)["code"] == code, query


def test_pages_are_absolute_and_repeat_what_was_asked(shelf: Shelf) -> None:
    put(shelf.door, "second of a page", b"x" * 10)
    first = shelf.get("/api/v1/models?limit=1&sort=Oldest&types[]=Checkpoint&token=secret&colour=red").json()
    page = first["metadata"]["nextPage"]
    assert page.startswith(f"{shelf.door.url}/api/v1/models?")
    asked = parse_qs(urlsplit(page).query)
    assert asked == {
        "limit": ["1"],
        "sort": ["Oldest"],
        "types": ["Checkpoint"],
        "cursor": [first["metadata"]["nextCursor"]],
    }
    second = httpx.get(page).json()
    assert second["items"][0]["id"] > first["items"][0]["id"]
    refused = shelf.get(f"/api/v1/models?sort=Newest&types=Checkpoint&cursor={first['metadata']['nextCursor']}")
    assert assert_problem(refused, 400)["code"] == "invalid_cursor"
    numbered = shelf.get("/api/v1/models?limit=1&page=2&sort=Oldest").json()
    assert numbered["items"] == second["items"]
    assert numbered["metadata"]["currentPage"] == 2
