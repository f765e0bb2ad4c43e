"""Addresses through the door: registered, confirmed, tested, shown without their secrets; links that need no key."""

from __future__ import annotations

import json
from uuid import UUID

import httpx
import pytest
from standardwebhooks import Webhook

from storage.postgres.accounts import accounts
from storage.postgres.notifications import endpoints, preferences, sendings
from storage.postgres.notifications.sendings import Purpose, SendingState
from storage.push_key import public_push_key
from storage.records.accounts.accounts import Scope
from storage.records.notifications.channels import Channel
from storage.records.notifications.notification_links import Confirm, Unsubscribe
from storage.records.notifications.notifications import Frequency, Preference
from storage.records.policy.signed_links import SigningKeys
from storage.sealing import Seal
from storage.signing import write_email_link
from tests.flows.notifications.channels.browser import Browser, unbase64
from tests.platform_api.door import ALL, Door

AT = "/api/v1/notifications"
KEY = SigningKeys(current="a key for tests")


def number(door: Door, name: str) -> int:
    """The number of an account."""
    return door.database.run(accounts.ensure_account(name)).number


def client(door: Door, name: str) -> httpx.Client:
    """A client of an account's own."""
    return door.client(door.new_key(*ALL, account=name))


def give_up(door: Door, reader: int) -> UUID:
    """A test of a reader's webhook that was given up."""
    endpoint = door.database.run(endpoints.get(reader, Channel.WEBHOOK))
    door.database.run(sendings.add(Purpose.TEST, reader, Channel.WEBHOOK, endpoint.id))
    claimed = door.database.run(sendings.claim(60))
    assert claimed is not None
    door.database.run(sendings.end(claimed, SendingState.DEAD, "the receiver returned 500"))
    return claimed.id


def test_an_email_address_is_confirmed_by_a_page_that_posts(shared_door: Door):
    ann = client(shared_door, "ann")
    made = ann.put(f"{AT}/channels/email", json={"address": "Ann@Example.com"}).json()
    assert (made["address"], made["state"]) == ("A…@example.com", "unconfirmed")
    assert ann.post(f"{AT}/channels/email/test").status_code == 409
    endpoint = shared_door.database.run(endpoints.get(number(shared_door, "ann"), Channel.EMAIL))
    link = f"{AT}/confirm?token={write_email_link(Confirm(endpoint_id=endpoint.id), KEY)}"
    stranger = shared_door.client("")
    for _ in range(2):
        page = stranger.get(link)
        assert page.headers["content-type"].startswith("text/html")
        assert "<form method=post>" in page.text
        assert "form-action 'self'" in page.headers["content-security-policy"]
    assert ann.get(f"{AT}/channels").json()["items"][0]["state"] == "unconfirmed"
    for _ in range(2):
        assert "A…@example.com" in stranger.post(link).text
    assert ann.get(f"{AT}/channels").json()["items"][0]["state"] == "active"
    again = ann.put(f"{AT}/channels/email", json={"address": "Ann@example.com"}).json()
    assert again["state"] == "active"
    shared_door.database.run(endpoints.suspend(endpoint.id, "the mail server returned 550"))
    assert stranger.post(link).status_code == 404
    assert ann.get(f"{AT}/channels").json()["items"][0]["reason"] == "the mail server returned 550"
    ann.put(f"{AT}/channels/email", json={"address": "other@example.com"})
    assert stranger.post(link).status_code == 404


def test_one_click_stops_one_kind_of_email_and_nothing_else(shared_door: Door):
    reader = number(shared_door, "bob")
    wish = Preference(type="job_failed", channel=Channel.EMAIL, frequency=Frequency.HOURLY)
    shared_door.database.run(preferences.say(reader, [wish]))
    link = f"{AT}/unsubscribe?token={write_email_link(Unsubscribe(reader=reader, types=('system', 'gone')), KEY)}"
    stranger = shared_door.client("")
    assert "News of the platform itself." in stranger.get(link).text
    assert shared_door.database.run(preferences.chosen(reader)) == [wish]
    one_click = {"List-Unsubscribe": "One-Click"}
    for _ in range(2):
        assert stranger.post(link, data=one_click).status_code == 200
    never = Preference(type="system", channel=Channel.EMAIL, frequency=Frequency.NEVER)
    assert shared_door.database.run(preferences.chosen(reader)) == [wish, never]


@pytest.mark.parametrize("kind", ["confirm", "unsubscribe"])
def test_a_link_that_is_not_ours_does_nothing(shared_door: Door, kind: str):
    reader = number(shared_door, "cid")
    ours = write_email_link(Unsubscribe(reader=reader, types=("system",)), KEY)
    others = write_email_link(Unsubscribe(reader=reader, types=("system",)), SigningKeys(current="another key"))
    wrong_kind = ours if kind == "confirm" else write_email_link(Confirm(endpoint_id=UUID(int=1)), KEY)
    stranger = shared_door.client("")
    for token in (others, wrong_kind, ours[:-2], "x", "é", "A" * 40):
        for method in ("GET", "POST"):
            assert stranger.request(method, f"{AT}/{kind}", params={"token": token}).status_code == 403
    assert shared_door.database.run(preferences.chosen(reader)) == []


def test_a_webhooks_secret_is_shown_once_and_can_be_renewed(shared_door: Door):
    dan = client(shared_door, "dan")
    url = "https://hooks.example.com/T0/secret-path"
    first = dan.put(f"{AT}/channels/webhook", json={"url": url}).json()
    second = dan.post(f"{AT}/channels/webhook/secret").json()
    assert first["secret"] != second["secret"]
    assert first["oldUntil"] is None
    assert second["oldUntil"] is not None
    for made in (first, second):
        assert Webhook(made["secret"])
    shown = dan.get(f"{AT}/channels").text
    assert "https://hooks.example.com/…" in shown
    assert not any(part in shown for part in ("secret-path", first["secret"], second["secret"]))
    stored = shared_door.database.run(endpoints.get(number(shared_door, "dan"), Channel.WEBHOOK))
    seal = Seal(shared_door.settings.notifications)
    assert (seal.open(stored.address), stored.secret and seal.open(stored.secret)) == (url, second["secret"])
    assert dan.delete(f"{AT}/channels/webhook").status_code == 204
    assert dan.post(f"{AT}/channels/webhook/secret").status_code == 404


@pytest.mark.parametrize("url", ["http://hooks.example.com/", "https://127.0.0.1/", "https://localhost/"])
def test_an_address_that_leads_inside_is_refused_with_its_reason(shared_door: Door, url: str):
    response = client(shared_door, "eve").put(f"{AT}/channels/webhook", json={"url": url})
    assert response.status_code == 422
    assert "url" in response.json()["errors"]
    assert client(shared_door, "eve").get(f"{AT}/channels").json() == {"items": []}


def test_nobody_is_flooded_with_confirmations(shared_door: Door):
    fay = client(shared_door, "fay")
    codes = [
        fay.put(f"{AT}/channels/email", json={"address": f"victim{turn}@example.com"}).status_code for turn in range(5)
    ]
    assert codes == [200, 200, 200, 429, 429]
    kept = shared_door.database.run(endpoints.get(number(shared_door, "fay"), Channel.EMAIL))
    assert Seal(shared_door.settings.notifications).open(kept.address) == "victim2@example.com"


def test_what_was_given_up_is_listed_and_sent_again_by_its_owner_alone(door: Door):
    gus = client(door, "gus")
    gus.put(f"{AT}/channels/webhook", json={"url": "https://hooks.example.com/"})
    dead = give_up(door, number(door, "gus"))
    [found] = gus.get(f"{AT}/dead-letters").json()["items"]
    assert (found["id"], found["lastError"], found["attempts"]) == (str(dead), "the receiver returned 500", 1)
    hal = client(door, "hal")
    assert hal.get(f"{AT}/dead-letters").json() == {"items": []}
    assert hal.post(f"{AT}/dead-letters/{dead}/replay").status_code == 404
    assert gus.post(f"{AT}/dead-letters/{dead}/replay").json()["id"] == str(dead)
    assert gus.post(f"{AT}/dead-letters/{dead}/replay").status_code == 404
    again = door.database.run(sendings.claim(60))
    assert again is not None
    assert (again.id, again.attempts) == (dead, 1)


def test_a_key_that_only_reads_registers_nothing(shared_door: Door):
    reads = shared_door.client(shared_door.new_key(Scope.NOTIFICATIONS_READ, account="ida"))
    assert reads.put(f"{AT}/channels/webhook", json={"url": "https://hooks.example.com/"}).status_code == 403


def test_a_browser_subscribes_with_our_key_and_its_own_json(shared_door: Door):
    jay, browser = client(shared_door, "jay"), Browser()
    key = jay.get(f"{AT}/channels/push/key").json()["applicationServerKey"]
    assert key == public_push_key(shared_door.settings.notifications)
    assert (len(unbase64(key)), unbase64(key)[0]) == (65, 4)
    made = jay.put(f"{AT}/channels/push", json={**browser.subscription(), "expirationTime": None}).json()
    assert (made["address"], made["state"]) == ("https://push.example.com/…", "active")
    stored = shared_door.database.run(endpoints.get(number(shared_door, "jay"), Channel.PUSH))
    assert json.loads(Seal(shared_door.settings.notifications).open(stored.address)) == browser.subscription()
    assert b"f3a9" not in stored.address
    assert jay.post(f"{AT}/channels/push/test").json()["channel"] == "push"
    assert jay.delete(f"{AT}/channels/push").status_code == 204
    assert jay.delete(f"{AT}/channels/push").status_code == 404


@pytest.mark.parametrize(
    ("endpoint", "keys", "field"),
    [
        ("https://10.0.0.1/", {}, "endpoint"),
        ("https://[2606:4700::1111]/", {}, "endpoint"),
        ("https://push.example.com/", {"p256dh": "AAAA"}, "keys"),
        ("https://push.example.com/", {"auth": "AAAA"}, "keys"),
    ],
)
def test_a_subscription_that_no_browser_gives_is_refused(
    shared_door: Door, endpoint: str, keys: dict[str, str], field: str
):
    given = Browser(endpoint).subscription()
    given["keys"] = {**given["keys"], **keys}
    response = client(shared_door, "kim").put(f"{AT}/channels/push", json=given)
    assert (response.status_code, list(response.json()["errors"])) == (422, [field])


def test_a_chat_channel_is_named_by_its_services_secret_which_is_never_shown(shared_door: Door):
    lea, url = client(shared_door, "lea"), "https://discord.com/api/webhooks/123456/a-secret_token"
    made = lea.put(f"{AT}/channels/chat", json={"url": url})
    assert (made.json()["address"], made.json()["state"]) == ("https://discord.com/…", "active")
    assert not any("secret_token" in text for text in (made.text, lea.get(f"{AT}/channels").text))
    stored = shared_door.database.run(endpoints.get(number(shared_door, "lea"), Channel.CHAT))
    assert b"secret_token" not in stored.address
    assert Seal(shared_door.settings.notifications).open(stored.address) == url
    assert lea.post(f"{AT}/channels/chat/test").json()["channel"] == "chat"
    refused = lea.put(f"{AT}/channels/chat", json={"url": "json://10.0.0.1/"})
    assert refused.status_code == 422
    assert "Discord" in refused.json()["errors"]["url"]
    assert lea.delete(f"{AT}/channels/chat").status_code == 204
