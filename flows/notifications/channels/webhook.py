"""Webhooks: one signed POST in the form of Standard Webhooks (standardwebhooks.com).

Receivers check `webhook-signature` over `webhook-id`, `webhook-timestamp` and the body, and recognise repeats by the
id, which is the sending's. After a new secret was made, both it and the old one sign for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from standardwebhooks import Webhook

from flows.notifications.channels.http_outcomes import post
from flows.notifications.channels.protocol import Item, Message, Outcome, Sender
from flows.notifications.channels.transport import PublicTransport
from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.addresses import read_web_address
from storage.settings import Settings


class WebhookSender:
    """Sends messages as webhooks."""

    def __init__(
        self, transport: PublicTransport, public_url: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._transport, self._public_url, self._now = transport, public_url, now

    def send(self, message: Message) -> Outcome:
        """Post a message. 410, or a name that leads inside, ends the address; all else that is no 2xx is tried
        again."""
        body, address = self._body(message), read_web_address(message.address)
        headers = self._headers(message, body)
        return post(self._transport, address, body, headers, who="the receiver", ended=(410,))

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        # The time of this try: receivers refuse old timestamps, and a retry may come after a day.
        identity, now = str(message.id), self._now()
        signatures = [Webhook(secret).sign(identity, now, body.decode()) for secret in message.secrets]
        return {
            "Content-Type": "application/json",
            "User-Agent": "Darkroom",
            "webhook-id": identity,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _body(self, message: Message) -> bytes:
        """The same bytes at each try."""
        match message.purpose, list(message.items):
            case Purpose.NOTIFY, [item]:
                kind, data = f"notification.{item.type}", self._data(item)
            case Purpose.NOTIFY, items:
                kind, data = "notification.digest", {"notifications": [self._data(item) for item in items]}
            case _:
                kind, data = "notification.test", {}
        return msgspec.json.encode({"type": kind, "timestamp": message.created_at, "data": data})

    def _data(self, item: Item) -> dict[str, object]:
        link = self._public_url + item.text.path if item.text.path else None
        return {
            "id": item.id,
            "type": item.type,
            "title": item.text.title,
            "text": item.text.text,
            "link": link,
            "details": item.details,
            "createdAt": item.created_at,
        }


def sender(settings: Settings) -> Sender:
    """What sends webhooks."""
    return WebhookSender(PublicTransport(settings.notifications.call_seconds), settings.api.public_url)
