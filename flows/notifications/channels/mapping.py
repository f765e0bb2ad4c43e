"""Which sender carries which channel."""

from __future__ import annotations

from collections.abc import Mapping

from flows.notifications.channels.chat import ChatSender
from flows.notifications.channels.email import EmailSender
from flows.notifications.channels.protocol import Sender
from flows.notifications.channels.push import PushSender
from flows.notifications.channels.transport import PublicTransport
from flows.notifications.channels.webhook import WebhookSender
from storage.records.notifications.notifications import Channel
from storage.settings import Settings


def senders(settings: Settings) -> Mapping[Channel, Sender]:
    """A sender for each channel that leaves the platform."""
    notifying, keys = settings.notifications, settings.api.signing_keys
    transport, public_url = PublicTransport(notifying.call_seconds), settings.api.public_url
    return {
        Channel.EMAIL: EmailSender(notifying, public_url, keys),
        Channel.WEBHOOK: WebhookSender(transport, public_url),
        Channel.PUSH: PushSender(transport, notifying, public_url),
        Channel.CHAT: ChatSender(notifying.call_seconds, public_url),
    }
