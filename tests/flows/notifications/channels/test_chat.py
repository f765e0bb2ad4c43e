"""Chat: each service is called at its own host alone, in time, and nobody's words ring everybody."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest

from flows.notifications.channels.chat import ChatSender
from flows.notifications.channels.protocol import Item, Message, PermanentFailure, TemporaryFailure
from flows.notifications.channels.protocol import Sent as Taken
from flows.notifications.deliver import deliver
from storage.postgres.notifications import endpoints
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.channels import Channel
from storage.records.notifications.chat import HOSTS, Service
from storage.records.notifications.notifications import NotificationText
from tests.flows.notifications.channels.proxy import Proxy, proxying
from tests.flows.notifications.conftest import Notifier
from tests.flows.notifications.internet import Receiver, receiving

DISCORD = "https://discord.com/api/webhooks/123456/a-secret_token"
ADDRESSES = {
    Service.DISCORD: ("discord://123456/a-secret_token", DISCORD),
    Service.SLACK: (
        "slack://T0AAAAAAA/B0BBBBBBB/cccccccccccccccccccccccc",
        "https://hooks.slack.com/services/T0AAAAAAA/B0BBBBBBB/cccccccccccccccccccccccc",
    ),
    Service.TELEGRAM: ("tgram://12345:a-secret_token/-10012345", "tgram://12345:a-secret_token/@a_channel"),
    Service.GOOGLE_CHAT: (
        "gchat://space/a-key/a-secret_token",
        "https://chat.googleapis.com/v1/spaces/space/messages?key=a-key&token=a-secret_token%3D",
    ),
}
WORDS = NotificationText(
    title="ann & bob mentioned you @everyone", text="See <!channel> !here <users/all>", path="/docs"
)


def message(address: str, *words: NotificationText) -> Message:
    """A sending to an address."""
    now = datetime.now(UTC)
    items = [Item(number, "mention", said, {}, now) for number, said in enumerate(words or [WORDS])]
    return Message(UUID(int=1), Purpose.NOTIFY, 1, UUID(int=2), address, [], items, now)


def ok(request: BaseHTTPRequestHandler) -> None:
    """What all four services return when they have taken something."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, Receiver]]:
    with receiving(tmp_path, *HOSTS.values()) as (internet, receiver), proxying(receiver.port) as proxy:
        for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(internet.authority))
        receiver.response = ok
        yield proxy, receiver


@pytest.mark.parametrize("service", Service)
def test_a_service_is_called_at_its_own_host_and_rings_nobody_else(
    world: tuple[Proxy, Receiver], service: Service
) -> None:
    proxy, receiver = world
    for address in ADDRESSES[service]:
        assert ChatSender(20, "https://d.example").send(message(address)) == Taken()
    assert proxy.asked == [f"{HOSTS[service]}:443"] * 2
    assert len(receiver.calls) == 2
    for call in receiver.calls:
        said = json.dumps(json.loads(call.body), ensure_ascii=False)
        assert all(part in said for part in ("mentioned you", "https://d.example/docs"))
        assert not any(part in said for part in ("@everyone", "!channel", "!here", "<users/all"))


def test_a_long_digest_is_cut_to_what_a_service_takes(world: tuple[Proxy, Receiver]) -> None:
    _, receiver = world
    many = [NotificationText(title=f"Model {number} is ready" + "!" * 100, text="") for number in range(100)]
    assert ChatSender(20, "https://d.example").send(message(DISCORD, *many)) == Taken()
    [call] = receiver.calls
    content = json.loads(call.body)["content"]
    assert content.startswith("100 notifications: Model 0 is ready")
    assert 1900 < len(content) <= 2000


def test_what_a_service_returns_decides_what_comes_next(world: tuple[Proxy, Receiver]) -> None:
    proxy, receiver = world
    sender, hasty = ChatSender(20, "https://d.example"), ChatSender(0.5, "https://d.example")

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 307 Away\r\nLocation: https://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")

    def drop(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    def hang(request: BaseHTTPRequestHandler) -> None:
        request.connection.settimeout(5)
        request.connection.recv(1)

    def limit(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(
            b"HTTP/1.1 429 Slow down\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 4102444800\r\n"
            b"Content-Length: 0\r\n\r\n"
        )

    for response, words in (
        (500, "error=500"),
        (redirect, "error=307"),
        (drop, "Connection error"),
        (hang, "took more than 0.5 s|Connection error"),
        (limit, "took more than 0.5 s"),  # the library would wait until the year 2100
    ):
        receiver.response = response
        outcome = (hasty if response in (hang, limit) else sender).send(message(DISCORD))
        assert isinstance(outcome, TemporaryFailure)
        assert any(part in outcome.reason for part in words.split("|")), outcome
    assert set(proxy.asked) == {"discord.com:443"}
    for status in (401, 403, 404, 410):
        receiver.response = status
        outcome = sender.send(message(DISCORD))
        assert isinstance(outcome, PermanentFailure)
        assert f"error={status}" in outcome.reason


def test_a_chat_address_is_opened_used_and_named_nowhere(
    notifier: Notifier, world: tuple[Proxy, Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    _, receiver = world
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.CHAT, DISCORD)
    channels = {Channel.CHAT: ChatSender(20, "https://d.example")}
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, "apprise"):
        for key, response in (("first", ok), ("second", 404)):
            receiver.response = response
            notifier.notify(key)
            notifier.fan_out()
            deliver(notifier.stores, channels, workers=1)
    assert notifier.states() == ["sent", "dead"]
    assert [call.path for call in receiver.calls] == ["/api/webhooks/123456/a-secret_token"] * 2
    found = notifier.stores.database.run(endpoints.get(reader, Channel.CHAT))
    assert (found.state, "error=404" in str(found.reason)) == (EndpointState.SUSPENDED, True)
    assert "given up" in caplog.text
    assert not any(secret in f"{caplog.text} {found.reason}" for secret in ("123456", "a-secret_token"))


def test_a_test_of_an_address_says_so(world: tuple[Proxy, Receiver]) -> None:
    _, receiver = world
    test = replace(message(DISCORD), purpose=Purpose.TEST, items=[])
    assert ChatSender(20, "https://d.example").send(test) == Taken()
    assert "A test from Darkroom" in json.loads(receiver.calls[0].body)["content"]
