"""Notifications in the app through the door: the list, counts that stay right, reading, preferences, the stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import httpx
import pytest

from flows.notifications.fan_out import fan_out
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.postgres.notifications import notifications
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import TYPES, SystemNotice
from storage.stores import open_stores
from tests.platform_api.door import ALL, Door
from tests.platform_api.streams.test_job_events import read

pytestmark = pytest.mark.timeout(60)
AT = "/api/v1/notifications"


def number(door: Door, name: str) -> int:
    """The number of an account."""
    return door.database.run(accounts.ensure_account(name)).number


def tell(door: Door, name: str, *titles: str) -> None:
    """Tell an account some things."""
    for title in titles:
        notice = SystemNotice(title=title, text="Text.", path="/docs")
        door.database.run(notifications.add(f"{name}:{title}", notice, [number(door, name)]))
    with open_stores(door.settings) as stores:
        fan_out(stores)


def client(door: Door, name: str) -> httpx.Client:
    """A client of an account's own."""
    return door.client(door.new_key(*ALL, account=name))


def test_a_reader_pages_through_its_own_notifications_only(shared_door: Door):
    tell(shared_door, "ann", "1", "2", "3")
    tell(shared_door, "bob", "other")
    ann = client(shared_door, "ann")
    first = ann.get(AT, params={"limit": 2}).json()
    assert [one["title"] for one in first["items"]] == ["3", "2"]
    assert first["items"][0]["link"] == f"{shared_door.url}/docs"
    second = ann.get(first["metadata"]["nextPage"]).json()
    assert [one["title"] for one in second["items"]] == ["1"]
    assert second["metadata"]["nextCursor"] is None


def test_unread_counts_are_those_of_the_rows(shared_door: Door):
    tell(shared_door, "cid", "1", "2", "3", "4")
    cid, ids = client(shared_door, "cid"), []
    ids = [one["id"] for one in cid.get(AT).json()["items"]]
    assert cid.get(f"{AT}/unread").json() == {"unread": 4, "byType": {"system": 4}}
    for _ in range(2):
        assert cid.post(f"{AT}/{ids[0]}/read").json()["unread"] == 3
    assert cid.post(f"{AT}/read", params={"upTo": ids[2]}).json() == {"unread": 1, "byType": {"system": 1}}
    assert [one["id"] for one in cid.get(AT, params={"unread": "true"}).json()["items"]] == [ids[1]]
    tell(shared_door, "cid", "5")
    assert cid.get(f"{AT}/unread").json()["unread"] == 2


def test_nobody_reads_for_another(shared_door: Door):
    tell(shared_door, "dan", "private")
    [found] = client(shared_door, "dan").get(AT).json()["items"]
    eve = client(shared_door, "eve")
    assert eve.post(f"{AT}/{found['id']}/read").status_code == 404
    eve.post(f"{AT}/read", params={"upTo": found["id"]})
    assert client(shared_door, "dan").get(f"{AT}/unread").json()["unread"] == 1


def test_preferences_are_the_defaults_until_a_reader_says_otherwise(shared_door: Door):
    fay = client(shared_door, "fay")
    defaults = fay.get(f"{AT}/preferences").json()
    assert len(defaults["preferences"]) == len(TYPES) * len(Channel)
    assert all(one["isDefault"] for one in defaults["preferences"])
    wish = {
        "zone": "Asia/Tokyo",
        "quietFrom": "22:00",
        "quietTo": "07:30",
        "preferences": [{"type": "system", "channel": "in_app", "frequency": "never"}],
    }
    for _ in range(2):
        said = fay.put(f"{AT}/preferences", json=wish).json()
        assert (said["zone"], said["quietFrom"], said["quietTo"]) == ("Asia/Tokyo", "22:00", "07:30")
        assert [one for one in said["preferences"] if not one["isDefault"]] == [
            {**wish["preferences"][0], "isDefault": False}
        ]
    tell(shared_door, "fay", "unheard")
    assert fay.get(AT).json()["items"] == []
    assert fay.put(f"{AT}/preferences", json={}).json() == defaults
    tell(shared_door, "fay", "heard")
    assert [one["title"] for one in fay.get(AT).json()["items"]] == ["heard"]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"preferences": [{"type": "gossip", "channel": "email", "frequency": "now"}]}, "preferences"),
        ({"preferences": [{"type": "system", "channel": "in_app", "frequency": "daily"}]}, "preferences"),
        ({"preferences": [{"type": "system", "channel": "email", "frequency": "now"}] * 2}, "preferences"),
        ({"preferences": [{"type": "system", "channel": "pigeon", "frequency": "now"}]}, "preferences[0].channel"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
        ({"quietFrom": "22:00"}, "quietTo"),
        ({"quietFrom": "25:00", "quietTo": "07:00"}, "quietFrom"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_field(shared_door: Door, wish: dict[str, object], field: str):
    response = client(shared_door, "gus").put(f"{AT}/preferences", json=wish)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == [field]
    rows = Query(
        "select count(*)::int as said from notification_readers where reader = %(n)s",
        {"n": number(shared_door, "gus")},
        list,
    )
    assert shared_door.database.run(rows) == [{"said": 0}]


def test_the_stream_tells_new_ones_and_goes_on_where_it_broke_off(shared_door: Door):
    tell(shared_door, "hal", "before")
    hal = client(shared_door, "hal")
    with hal.stream("GET", f"{AT}/events") as response:
        seen = read(response)
        begins = next(seen)["id"]
        late = threading.Thread(target=tell, args=(shared_door, "hal", "one", "two"))
        late.start()
        assert titles(seen, 2) == ["one", "two"]
        late.join()
    tell(shared_door, "hal", "meanwhile")
    with hal.stream("GET", f"{AT}/events", headers={"Last-Event-ID": begins}) as response:
        assert titles(read(response), 3) == ["one", "two", "meanwhile"]
    assert hal.get(f"{AT}/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_what_is_told_to_everybody_wakes_every_stream(shared_door: Door):
    ida = client(shared_door, "ida")
    with ida.stream("GET", f"{AT}/events") as response:
        seen = read(response)
        next(seen)
        shared_door.database.run(notifications.add("to all", SystemNotice(title="to all", text="Text.")))
        with open_stores(shared_door.settings) as stores:
            fan_out(stores)
        assert titles(seen, 1) == ["to all"]


def titles(messages: Iterator[dict[str, str]], count: int) -> list[str]:
    """The titles of the next notifications of a stream."""
    found: list[str] = []
    while len(found) < count:
        message = next(messages)
        if message.get("event") == "notification":
            found.append(json.loads(message["data"])["title"])
    return found
