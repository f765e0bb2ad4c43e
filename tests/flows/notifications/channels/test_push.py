"""Web push: only the subscribed browser can read it, its service knows who sent it, and an ended subscription ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec

from flows.notifications.channels.push import PushSender
from flows.notifications.deliver import deliver
from storage.postgres.notifications import endpoints, sendings
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.sendings import Purpose
from storage.push_key import public_push_key
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import SystemNotice
from tests.flows.notifications.channels.browser import Browser, signed_claims, unbase64
from tests.flows.notifications.conftest import Notifier
from tests.flows.notifications.internet import Internet, Receiver, receiving


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[Internet, Receiver]]:
    with receiving(tmp_path, "push.example.com") as found:
        yield found


def subscribe(notifier: Notifier, browser: Browser) -> tuple[int, UUID]:
    """A reader with a browser."""
    reader = notifier.reader("reader")
    return reader, notifier.register(reader, Channel.PUSH, json.dumps(browser.subscription()))


def push(notifier: Notifier, internet: Internet) -> None:
    """Send all that is due."""
    sender = PushSender(internet.transport(), notifier.stores.settings.notifications, "https://d.example")
    deliver(notifier.stores, {Channel.PUSH: sender}, workers=1)


def test_the_browser_opens_the_standards_own_example() -> None:
    # RFC 8291, 5: what the tests' browser reads with is the standard and no mirror of what we send with.
    number = int.from_bytes(unbase64("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    browser = Browser(key=ec.derive_private_key(number, ec.SECP256R1()), auth=unbase64("BTBZMqHH6r4Tts7J_aSIgg"))
    body = (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
        "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
        "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert browser.open(unbase64(body)) == b"When I grow up, I want to be a watermelon"


def test_a_push_is_read_by_its_browser_alone_and_signed_by_us(
    notifier: Notifier, net: tuple[Internet, Receiver]
) -> None:
    internet, receiver = net
    browser = Browser()
    subscribe(notifier, browser)
    notifier.notify("to all", SystemNotice(title="Maintenance", text="On Sunday.", path="/docs"))
    notifier.fan_out()
    receiver.response = 503
    push(notifier, internet)
    notifier.hurry()
    receiver.response = 201
    push(notifier, internet)
    assert notifier.states() == ["sent"]
    first, second = receiver.calls
    [sending] = notifier.rows("select id from sendings")
    for call in (first, second):
        message = json.loads(browser.open(call.body))
        assert (call.path, message["web_push"]) == ("/send/f3a9", 8030)
        assert message["notification"] == {
            "title": "Maintenance",
            "body": "On Sunday.",
            "navigate": "https://d.example/docs",
            "tag": str(sending["id"]),
            "data": {"types": ["system"]},
        }
        assert b"Maintenance" not in call.body
        told_by = {name: call.headers[name] for name in ("content-encoding", "ttl", "urgency")}
        assert told_by == {"content-encoding": "aes128gcm", "ttl": "86400", "urgency": "high"}
        claims = signed_claims(call.headers["authorization"], public_push_key(notifier.stores.settings.notifications))
        assert (claims["aud"], claims["sub"]) == ("https://push.example.com", "mailto:darkroom@localhost")
        until = datetime.fromtimestamp(int(str(claims["exp"])), UTC) - datetime.now(UTC)
        assert timedelta(hours=11) < until <= timedelta(hours=12)
    assert first.headers["topic"] == second.headers["topic"]
    assert unbase64(first.headers["topic"]) == UUID(str(sending["id"])).bytes
    assert first.body != second.body
    with pytest.raises(InvalidTag):
        Browser().open(first.body)


def test_a_long_text_is_shortened_to_what_push_services_take(
    notifier: Notifier, net: tuple[Internet, Receiver]
) -> None:
    internet, receiver = net
    browser = Browser()
    subscribe(notifier, browser)
    for letter in ("e", "€", "𝄞", "\x01"):
        notifier.notify(letter, SystemNotice(title="Long", text=letter * 1999 + "."))
        notifier.fan_out()
        push(notifier, internet)
        body = receiver.calls[-1].body
        text = json.loads(browser.open(body))["notification"]["body"]
        if letter == "e":
            assert text == letter * 1999 + "."
        else:
            assert 4096 - 8 < len(body) <= 4096
            assert text == letter * (len(text) - 1) + "…"


def test_a_subscription_that_ended_is_used_no_more(notifier: Notifier, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    for status in (404, 410):
        reader, _ = subscribe(notifier, Browser())
        receiver.response = status
        for turn in range(2):
            notifier.notify(f"{status}, {turn}")
            notifier.fan_out()
            push(notifier, internet)
        found = notifier.stores.database.run(endpoints.get(reader, Channel.PUSH))
        assert found.state is EndpointState.SUSPENDED
        assert f"the push service returned {status}" in str(found.reason)
    assert notifier.states() == ["dead", "dead"]


def test_what_may_pass_is_tried_again_not_before_the_service_asks_for_it(
    notifier: Notifier, net: tuple[Internet, Receiver]
) -> None:
    internet, receiver = net
    reader, endpoint = subscribe(notifier, Browser())
    notifier.stores.database.run(sendings.add(Purpose.TEST, reader, Channel.PUSH, endpoint))

    def busy(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 429 Slow down\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")

    for response, reason in ((413, "413"), (500, "500"), (busy, "429")):
        receiver.response = response
        notifier.hurry()
        push(notifier, internet)
        [row] = notifier.rows("select state, last_error, next_attempt_at - now() as pause from sendings")
        assert (row["state"], row["last_error"]) == ("due", f"the push service returned {reason}")
    pause = row["pause"]
    assert isinstance(pause, timedelta)
    assert timedelta(seconds=3590) < pause <= timedelta(hours=1)
    assert notifier.stores.database.run(endpoints.get(reader, Channel.PUSH)).state is EndpointState.ACTIVE


def test_a_push_service_that_turns_inwards_is_called_no_more(
    notifier: Notifier, net: tuple[Internet, Receiver]
) -> None:
    internet, receiver = net
    reader, _ = subscribe(notifier, Browser())
    internet.names["push.example.com"] = ["10.0.0.8"]
    notifier.notify("to all")
    notifier.fan_out()
    push(notifier, internet)
    assert (notifier.states(), receiver.calls, internet.connections) == (["dead"], [], [])
    assert "not on the internet" in str(notifier.stores.database.run(endpoints.get(reader, Channel.PUSH)).reason)
