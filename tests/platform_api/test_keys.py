"""API keys through the API: shown once, never more than the key that asks, revoked at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage.postgres import access
from storage.postgres.connection import Query
from storage.records.access import Scope, make_key
from tests.platform_api.door import ALL, Door
from tests.platform_api.test_problems import assert_problem

KEYS = "/api/v1/keys"


def test_a_key_is_shown_once_allows_what_it_says_and_stops_when_revoked(shared_door: Door) -> None:
    owner = shared_door.client()
    answer = owner.post(KEYS, json={"name": "laptop", "scopes": ["models:read", "models:read"]})
    made = answer.json()
    secret = made["key"].rsplit("_", 1)[1]
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert (made["scopes"], made["expiresAt"], made["revokedAt"]) == (["models:read"], None, None)
    client = shared_door.client(made["key"])
    assert client.get("/api/v1/me").json()["scopes"] == ["models:read"]
    assert_problem(client.get(KEYS), 403)
    listed = owner.get(KEYS)
    assert {name: value for name, value in made.items() if name != "key"} in listed.json()["items"]
    assert secret not in listed.text
    everything = Query("select row_to_json(row)::text as text from api_keys row", {}, list)
    assert secret not in str(shared_door.database.run(everything))
    assert owner.delete(f"{KEYS}/{made['id']}").status_code == 204
    assert_problem(client.get("/api/v1/me"), 401)
    [row] = [key for key in owner.get(KEYS).json()["items"] if key["id"] == made["id"]]
    assert row["revokedAt"] is not None
    assert owner.delete(f"{KEYS}/{made['id']}").status_code == 204


def test_a_key_gives_no_scope_that_it_lacks_and_no_longer_life(shared_door: Door) -> None:
    narrow = shared_door.client(shared_door.new_key(Scope.KEYS_WRITE, Scope.MODELS_READ))
    body = {"name": "x", "scopes": ["models:read", "models:write", "keys:read"]}
    refused = assert_problem(narrow.post(KEYS, json=body), 403)
    assert (refused["code"], "models:write, keys:read" in str(refused["detail"])) == ("scope_missing", True)
    assert narrow.post(KEYS, json={"name": "x", "scopes": ["models:read"]}).status_code == 201
    short, end = make_key(), datetime.now(UTC) + timedelta(hours=1)
    shared_door.database.run(access.add_key(shared_door.account_id, short, "short", ALL, expires_at=end))
    client = shared_door.client(short.text)
    heir = client.post(KEYS, json={"name": "x", "scopes": ["jobs:read"]}).json()
    assert datetime.fromisoformat(heir["expiresAt"]) == end
    later = {"name": "x", "scopes": ["jobs:read"], "expiresAt": (end + timedelta(hours=1)).isoformat()}
    assert set(assert_problem(client.post(KEYS, json=later), 422)["errors"]) == {"expiresAt"}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\0"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-14:00"}, "expiresAt"),
        ({"expiresAt": "2030-01-01T00:00:00"}, "expiresAt"),
        ({"accountId": "x"}, "accountId"),
    ],
)
def test_each_wrong_field_is_named(shared_door: Door, changes: dict[str, object], field: str) -> None:
    answer = shared_door.client().post(KEYS, json={"name": "x", "scopes": ["models:read"], **changes})
    assert set(assert_problem(answer, 422)["errors"]) == {field}  # type: ignore[call-overload]


def test_keys_of_others_are_neither_listed_nor_revoked(shared_door: Door) -> None:
    theirs = shared_door.new_key(*ALL, account="neighbour")
    identity = theirs.split("_")[1]
    owner, neighbour = shared_door.client(), shared_door.client(theirs)
    assert identity not in owner.get(f"{KEYS}?limit=200").text
    for unknown in (identity, "nothing", "%00", "%ff"):
        assert_problem(owner.delete(f"{KEYS}/{unknown}"), 404)
    assert neighbour.get("/api/v1/me").status_code == 200


def test_pages_of_keys_are_whole(shared_door: Door) -> None:
    client = shared_door.client(shared_door.new_key(*ALL, account="collector"))
    made = [client.post(KEYS, json={"name": str(n), "scopes": ["jobs:read"]}).json()["id"] for n in range(4)]
    found, page = [], f"{KEYS}?limit=2"
    while page:
        body = client.get(page).json()
        found += [key["id"] for key in body["items"]]
        page = body["metadata"]["nextPage"]
    assert found[:4] == made[::-1]
    assert len(found) == 5
    assert_problem(client.get(f"{KEYS}?cursor=zzz"), 422)
