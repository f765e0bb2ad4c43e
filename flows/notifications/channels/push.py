"""Web push: one encrypted message to a browser's push service (RFC 8030, 8291, 8292).

The service knows who sends, by our signature, and cannot read what. The message is a declarative push message
(W3C Push API): browsers that know them show it by themselves, a service worker finds the same JSON in `event.data`.
A repeat replaces what it repeats: it has the same Topic at the service, and the same tag in the browser.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import http_ece
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02

from flows.notifications.channels.http_outcomes import post
from flows.notifications.channels.protocol import Message, Outcome, Sender
from flows.notifications.channels.summary import summarize
from flows.notifications.channels.transport import PublicTransport
from storage.push_key import push_key
from storage.records.notifications.addresses import WebAddress
from storage.records.notifications.notifications import TYPES
from storage.records.notifications.push import PushSubscription, read_endpoint, read_keys
from storage.settings import NotificationSettings, Settings

MAX_BYTES = 4096 - 103
"""Of a message: push services take 4,096 bytes, of which encryption needs 103 (RFC 8291, 4)."""
KEPT_SECONDS = 86400
"""A push service keeps a message so long for a browser that is off. After that it is in the list in the app."""
SIGNED_FOR = timedelta(hours=12)
"""A signature is good for so long; a day is the most that push services take (RFC 8292, 2)."""


class PushSender:
    """Sends messages as web push messages."""

    def __init__(
        self,
        transport: PublicTransport,
        settings: NotificationSettings,
        public_url: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._transport, self._settings, self._public_url, self._now = transport, settings, public_url, now

    def send(self, message: Message) -> Outcome:
        """Push a message. 404 and 410 say that the subscription has ended (RFC 8030, 7.3)."""
        subscription = msgspec.json.decode(message.address, type=PushSubscription)
        address, (point, auth) = read_endpoint(subscription.endpoint), read_keys(subscription.keys)
        # With a key for each message (RFC 8291, 3.1), unrelated to the one that signs.
        body: bytes = http_ece.encrypt(
            self.payload(message), private_key=ec.generate_private_key(ec.SECP256R1()), dh=point, auth_secret=auth
        )
        headers = self._headers(message, address)
        return post(self._transport, address, body, headers, who="the push service", ended=(404, 410))

    def payload(self, message: Message) -> bytes:
        """What the browser reads, at most MAX_BYTES of it: the text is shortened."""
        summary = summarize(message, self._public_url)

        def written(length: int) -> bytes:
            text = summary.text if length == len(summary.text) else summary.text[:length] + "…"
            notification = {
                "title": summary.title,
                "body": text,
                "navigate": summary.link,
                "tag": str(message.id),
                "data": {"types": sorted({item.type for item in message.items})},
            }
            return msgspec.json.encode({"web_push": 8030, "notification": notification})

        whole = written(len(summary.text))
        if len(whole) <= MAX_BYTES:
            return whole
        # Cut in characters, while the limit is of bytes of JSON: the longest that fits is looked for.
        too_long = bisect_right(range(len(summary.text)), MAX_BYTES, key=lambda length: len(written(length)))
        return written(max(0, too_long - 1))

    def _headers(self, message: Message, address: WebAddress) -> dict[str, str]:
        port = "" if address.port == 443 else f":{address.port}"
        claims = {
            "aud": f"https://{address.host}{port}",
            "exp": int((self._now() + SIGNED_FOR).timestamp()),
            "sub": f"mailto:{self._settings.sender}",
        }
        # A browser's subscription is bound to the key that it was made under; another signature is refused.
        key = push_key(self._settings, previous=message.sealed_before)
        return {
            "Authorization": Vapid02(key).sign(claims)["Authorization"],
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(KEPT_SECONDS),
            "Urgency": _urgency(message),
            # At most 32 characters of base64url (RFC 8030, 5.4): a UUID as text is too long.
            "Topic": base64.urlsafe_b64encode(message.id.bytes).decode().rstrip("="),
        }


def sender(settings: Settings) -> Sender:
    """What sends web push messages."""
    transport = PublicTransport(settings.notifications.call_seconds)
    return PushSender(transport, settings.notifications, settings.api.public_url)


def _urgency(message: Message) -> str:
    """How much of a battery it is worth: what passes quiet hours most, what was gathered least (RFC 8030, 5.3)."""
    if any(item.type in TYPES and TYPES[item.type].always for item in message.items):
        return "high"
    return "low" if len(message.items) > 1 else "normal"
