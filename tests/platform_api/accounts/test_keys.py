"""API keys through the API: shown once, never more than the key that asks, revoked at once."""

from __future__ import annotations

import io
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from platform_api.http import request_body
from platform_api.http.limits import write_cursor
from storage.errors import QuotaExceeded
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.records.accounts.accounts import MAX_KEYS, Scope, make_key
from tests.platform_api.door import ALL, Door, photo
from tests.platform_api.http.test_problems import assert_problem
from tests.platform_api.sending import STOPPED, a_sender, stopping_its_key

KEYS = "/api/v1/keys"


def test_a_key_is_shown_once_allows_what_it_says_and_stops_when_revoked(shared_door: Door) -> None:
    owner = shared_door.client()
    response = owner.post(KEYS, json={"name": "laptop", "scopes": ["models:read", "models:read"]})
    made = response.json()
    secret = made["key"].rsplit("_", 1)[1]
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
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
    shared_door.database.run(accounts.add_key(shared_door.account_id, short, "short", ALL, expires_at=end))
    client = shared_door.client(short.text)
    heir = client.post(KEYS, json={"name": "x", "scopes": ["jobs:read"]}).json()
    assert datetime.fromisoformat(heir["expiresAt"]) == end
    later = {"name": "x", "scopes": ["jobs:read"], "expiresAt": (end + timedelta(hours=1)).isoformat()}
    assert set(assert_problem(client.post(KEYS, json=later), 422)["errors"]) == {"expiresAt"}


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
    response = shared_door.client().post(KEYS, json={"name": "x", "scopes": ["models:read"], **changes})
    assert set(assert_problem(response, 422)["errors"]) == {field}


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
    for cursor in ("zzz", write_cursor("yesterday", "x"), write_cursor("2026-01-01T00:00:00+00:00", "x\0")):
        assert_problem(client.get(KEYS, params={"cursor": cursor}), 422)


def make(client: httpx.Client) -> str:
    """The text of a key that the client's key makes."""
    response = client.post(KEYS, json={"name": "child", "scopes": [scope.value for scope in ALL]})
    assert response.status_code == 201, response.text
    return response.json()["key"]


def id_of(key: str) -> str:
    """The id in a key's text."""
    return key.split("_")[1]


def works(door: Door, key: str) -> bool:
    """Whether the API takes a key."""
    return door.client(key).get("/api/v1/me").status_code == 200


def test_no_key_is_made_by_one_that_is_revoked_meanwhile(shared_door: Door) -> None:
    owner, parent = (shared_door.new_key(*ALL, account="quick") for _ in range(2))

    def fill(client: httpx.Client) -> list[str]:
        responses = [client.post(KEYS, json={"name": "x", "scopes": ["models:read"]}) for _ in range(6)]
        assert {response.status_code for response in responses} <= {201, 401}
        return [response.json()["key"] for response in responses if response.status_code == 201]

    with ThreadPoolExecutor(8) as pool:
        filling = pool.map(fill, [shared_door.client(parent) for _ in range(8)])
        time.sleep(0.05)
        assert shared_door.client(owner).delete(f"{KEYS}/{id_of(parent)}").status_code == 204
        made = [key for keys in filling for key in keys]
    with shared_door.database.connect() as connection:
        select = "select id from api_keys where made_by = %s and revoked_at is null"
        assert connection.execute(select, (id_of(parent),)).fetchall() == []
    assert not any(works(shared_door, key) for key in made[:5])


def test_an_account_has_a_hundred_working_keys_at_most_however_many_ask_at_once(shared_door: Door) -> None:
    key, account = shared_door.new_key(*ALL, account="hoarder"), shared_door.account("hoarder")
    ended = datetime.now(UTC) - timedelta(seconds=1)
    shared_door.database.run(accounts.add_key(account, make_key(), "ended", ALL, expires_at=ended))
    for _ in range(MAX_KEYS - 33):
        shared_door.database.run(accounts.add_key(account, make_key(), "x", ALL))
    client, body = shared_door.client(key), {"name": "x", "scopes": ["models:read"]}
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: client.post(KEYS, json=body), range(64)))
    made = [response.json()["id"] for response in responses if response.status_code == 201]
    refused = [response for response in responses if response.status_code != 201]
    assert len(made) == 32
    problem = assert_problem(refused[0], 403)
    assert (problem["code"], "Revoke one first" in str(problem["detail"])) == ("quota_exceeded", True)
    with pytest.raises(QuotaExceeded, match="100 keys of this account work"):
        shared_door.database.run(accounts.make_key(account, make_key(), "x", ALL))
    assert client.delete(f"{KEYS}/{made[0]}").status_code == 204
    assert client.post(KEYS, json=body).status_code == 201


def test_a_list_says_when_a_key_was_last_used_and_no_read_waits_for_that(shared_door: Door) -> None:
    owner, key = shared_door.client(), shared_door.new_key(Scope.MODELS_READ)

    def last_used() -> str:
        [row] = [row for row in owner.get(f"{KEYS}?limit=200").json()["items"] if row["id"] == id_of(key)]
        return row["lastUsedAt"] or ""

    def used_after(before: str) -> str:
        deadline = time.monotonic() + 15
        while last_used() <= before and time.monotonic() < deadline:
            assert works(shared_door, key)
            time.sleep(0.1)
        return last_used()

    with shared_door.database.connect() as connection, connection.transaction():
        connection.execute("select * from api_keys where id = %s for update", (id_of(key),))
        assert works(shared_door, key)  # while nobody may write its row
        time.sleep(2.5)
        assert last_used() == ""
    first = used_after("")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(first)) < timedelta(minutes=1)
    assert works(shared_door, key)
    time.sleep(2.5)
    assert last_used() == first  # once a minute
    with shared_door.database.connect() as connection:
        connection.execute("update api_keys set last_used_at = now() - interval '61 s' where id = %s", (id_of(key),))
    assert used_after(first) > first


@pytest.mark.parametrize("how", ["revoked", "banned"])
@pytest.mark.parametrize("door", ["image", "data set"])
def test_a_key_that_stops_working_makes_no_image_and_no_data_set(
    shared_door: Door, monkeypatch: pytest.MonkeyPatch, door: str, how: str
) -> None:
    """Also where it stops between the last byte and the row: making photos canonical takes its time."""
    monkeypatch.setattr(request_body, "KEY_SECONDS", 600.0)
    name = f"{door} {how}"
    account = shared_door.database.run(accounts.account(shared_door.account(name)))
    key, sender = shared_door.new_key(*ALL, account=name), a_sender(shared_door, account=name)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as photos:
        for seed in range(2):
            photos.writestr(f"{seed}.png", photo(seed))
    path, content, kind = {
        "image": (f"/api/v1/model-versions/{sender.version_id}/images", photo(1), "image/png"),
        "data set": ("/api/v1/data-sets", archive.getvalue(), "application/zip"),
    }[door]

    sending = stopping_its_key(shared_door, key, name, how, content)
    refused = shared_door.client(key).post(path, content=sending, headers={"Content-Type": kind})
    assert (refused.status_code, refused.json()["code"]) == STOPPED[how], refused.text
    made = """
        select from images join model_versions on model_versions.id = images.version_id
         where model_versions.id = %(version)s
        union all select from data_sets where account_id = %(account)s"""
    parameters = {"version": sender.version_id, "account": account.id}
    assert shared_door.database.run(Query(made, parameters, len)) == 0
