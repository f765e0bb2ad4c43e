"""Addresses of chat services: a closed list of those whose host is their own, so that nobody types where we call.

Pure. Each form is matched as a whole, and what is taken from it are letters, digits, dashes and the like: no host, no
path, no option. The forms are those of apprise (appriseit.com), and the links that the services themselves give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import unquote

import msgspec

from storage.errors import AddressRefused

_WORD = "[A-Za-z0-9_-]{1,200}"
_TOKEN = "[A-Za-z0-9]{1,100}"
_DISCORD = rf"(?P<webhook_id>[0-9]{{1,30}})/(?P<webhook_token>{_WORD})/?"
_SLACK = rf"(?P<token_a>{_TOKEN})/(?P<token_b>{_TOKEN})/(?P<token_c>{_TOKEN})/?"
_TELEGRAM = rf"(?P<bot_token>[0-9]{{1,20}}:{_WORD})/(?P<targets>-?[0-9]{{1,20}}|@[A-Za-z][A-Za-z0-9_]{{3,40}})/?"


class Service(StrEnum):
    """A chat service."""

    DISCORD = "Discord"
    SLACK = "Slack"
    TELEGRAM = "Telegram"
    GOOGLE_CHAT = "Google Chat"


HOSTS: Mapping[Service, str] = {
    Service.DISCORD: "discord.com",
    Service.SLACK: "hooks.slack.com",
    Service.TELEGRAM: "api.telegram.org",
    Service.GOOGLE_CHAT: "chat.googleapis.com",
}
"""Where each service is called, and nowhere else."""

_FORMS = tuple(
    (service, re.compile(form))
    for service, form in (
        (Service.DISCORD, rf"discord://{_DISCORD}"),
        (Service.DISCORD, rf"https://discord(?:app)?\.com/api/webhooks/{_DISCORD}"),
        (Service.SLACK, rf"slack://{_SLACK}"),
        (Service.SLACK, rf"https://hooks\.slack\.com/services/{_SLACK}"),
        (Service.TELEGRAM, rf"tgram://{_TELEGRAM}"),
        (Service.GOOGLE_CHAT, rf"gchat://(?P<workspace>{_WORD})/(?P<webhook_key>{_WORD})/(?P<webhook_token>{_WORD})/?"),
        (
            Service.GOOGLE_CHAT,
            rf"https://chat\.googleapis\.com/v1/spaces/(?P<workspace>{_WORD})/messages"
            rf"\?key=(?P<webhook_key>{_WORD})&token=(?P<webhook_token>{_WORD}(?:%3D){{0,2}})",
        ),
    )
)
ALLOWED = (
    "Discord (https://discord.com/api/webhooks/ID/TOKEN or discord://ID/TOKEN), "
    "Slack (https://hooks.slack.com/services/A/B/C or slack://A/B/C), "
    "Telegram (tgram://BOT_TOKEN/CHAT), "
    "Google Chat (https://chat.googleapis.com/v1/spaces/SPACE/messages?key=KEY&token=TOKEN or gchat://SPACE/KEY/TOKEN)"
)
"""The forms, for people."""


class ChatAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A service and what it knows a channel by. All of `parts` is secret."""

    service: Service
    parts: dict[str, str]

    @property
    def shown(self) -> str:
        """What may be shown of it."""
        return f"https://{HOSTS[self.service]}/…"


def read_chat_address(text: str) -> ChatAddress:
    """An address as somebody typed it. Raises AddressRefused, with what is allowed, for all but the forms above."""
    for service, form in _FORMS:
        if found := form.fullmatch(text):
            parts = {name: unquote(part) for name, part in found.groupdict().items()}
            return ChatAddress(service=service, parts=parts)
    raise AddressRefused(f"must be one of these, without options: {ALLOWED}")
