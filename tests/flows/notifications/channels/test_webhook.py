"""Webhooks: signed so that a receiver can check them, and tried again, or not, as it responds."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from flows.notifications.channels.webhook import WebhookSender
from flows.notifications.deliver import deliver
from storage.postgres.notifications import endpoints
from storage.records.notifications.channels import Channel
from storage.sealing import Seal
from tests.flows.notifications.conftest import DONE, HOOK, SECRET, Notifier, both
from tests.flows.notifications.internet import Internet, Receiver, receiving


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[Internet, Receiver]]:
    with receiving(tmp_path, "hooks.example.com") as found:
        yield found


def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(
    notifier: Notifier, net: tuple[Internet, Receiver]
) -> None:
    internet, receiver = net
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.notify("job", DONE, [reader])
    notifier.fan_out()
    sender = WebhookSender(internet.transport(), "https://d.example")
    deliver(notifier.stores, both(sender))
    [call] = receiver.calls
    checked = Webhook(SECRET).verify(call.body, call.headers)
    assert call.path == "/darkroom?secret=42"
    assert checked["type"] == "notification.job_finished"
    assert checked["data"]["title"] == "Your generation is done"
    assert checked["data"]["link"] == f"https://d.example/api/v1/generations/{DONE.job_id}"
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(call.body.replace(b"done", b"gone"), call.headers)


def test_after_a_new_secret_was_made_both_sign_for_a_while(notifier: Notifier, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    new = "whsec_" + "bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldw=="
    sealed = Seal(notifier.stores.settings.notifications).seal(new)
    notifier.stores.database.run(endpoints.rotate(reader, Channel.WEBHOOK, sealed, 3600))
    sender = WebhookSender(internet.transport(), "https://d.example")
    for key in ("during", "after"):
        notifier.notify(key)
        notifier.fan_out()
        deliver(notifier.stores, both(sender))
        notifier.rows("update endpoints set old_until = now() - interval '1 second' returning id")
    during, after = receiver.calls
    for secret, call in ((SECRET, during), (new, during), (new, after)):
        Webhook(secret).verify(call.body, call.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(after.body, after.headers)


def test_what_receivers_do_decides_what_comes_next(notifier: Notifier, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.notify("to all")
    notifier.fan_out()
    sender = WebhookSender(internet.transport(), "https://d.example")
    hasty = WebhookSender(internet.transport(seconds=0.5), "https://d.example")

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: https://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")

    def drop(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    def take_and_drop(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntak")
        request.close_connection = True

    def hang(request: BaseHTTPRequestHandler) -> None:
        request.connection.settimeout(5)
        request.connection.recv(1)

    for response, reason in (
        (500, "500"),
        (redirect, "not followed"),
        (drop, "Disconnect|Protocol"),
        (take_and_drop, "Protocol"),  # it may have it: the next try carries the same id
        (hang, "took more"),
    ):
        receiver.response = response
        deliver(notifier.stores, both(hasty if response is hang else sender), workers=1)
        [row] = notifier.rows("select state, last_error from sendings")
        assert row["state"] == "due", reason
        assert any(part in str(row["last_error"]) for part in reason.split("|")), row
        notifier.hurry()
    receiver.response = 200
    deliver(notifier.stores, both(sender), workers=1)
    assert notifier.states() == ["sent"]
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert len({call.body for call in receiver.calls}) == 1
    receiver.response = 410
    notifier.notify("more")
    notifier.fan_out()
    deliver(notifier.stores, both(sender), workers=1)
    assert notifier.states() == ["sent", "dead"]


def test_a_name_that_turns_inwards_ends_the_address(notifier: Notifier, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    internet.names["hooks.example.com"] = ["169.254.169.254"]
    notifier.notify("to all")
    notifier.fan_out()
    deliver(notifier.stores, both(WebhookSender(internet.transport(), "https://d.example")))
    assert (notifier.states(), receiver.calls, internet.connections) == (["dead"], [], [])
    [found] = notifier.stores.database.run(endpoints.of_reader(reader))
    assert "not on the internet" in str(found.reason)
