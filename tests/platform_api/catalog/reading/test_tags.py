"""Tags, creators and users."""

from __future__ import annotations

import httpx

from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import Scope
from tests.platform_api.catalog.reading.shelf import Shelf


def test_creators_tags_and_users_are_those_of_public_models(shelf: Shelf) -> None:
    creators = shelf.get("/api/v1/creators?query=OWN").json()
    assert [item["username"] for item in creators["items"]] == ["owner"]
    assert creators["metadata"]["totalItems"] == 1
    assert httpx.get(creators["items"][0]["link"]).json()["items"]
    tags = shelf.get("/api/v1/tags?limit=1").json()
    assert ([item["name"] for item in tags["items"]], tags["metadata"]["totalPages"]) == (["lighting"], 2)
    assert httpx.get(tags["metadata"]["nextPage"]).json()["items"][0]["name"] == "style"
    number = shelf.door.database.run(accounts.account(shelf.door.account_id)).number
    assert shelf.get(f"/api/v1/users?ids={number}").json() == {"items": [{"id": number, "username": "owner"}]}
    assert shelf.get("/api/v1/me", shelf.door.new_key(Scope.MODELS_READ)).json()["id"] == number
