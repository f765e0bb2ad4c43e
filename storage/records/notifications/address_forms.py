"""The forms of addresses outside the platform: what a reader types, which of it is taken, and what may be shown.

Pure. A channel names one of these in its line (channels.py); `text_address` makes one for any address that a pattern
matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from storage.errors import AddressRefused, InvalidRequest
from storage.records.notifications.addresses import read_email_address, read_web_address, shown_email_address
from storage.records.notifications.chat import read_chat_address
from storage.records.notifications.push import PushKeys, PushSubscription, read_endpoint, read_keys

Wish = TypeVar("Wish", bound=msgspec.Struct)
Typed = TypeVar("Typed")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Address:
    """An address that passed. `text` is what is sealed and sent to; `shown` is what may be shown of it."""

    text: str
    shown: str


@dataclass(frozen=True)
class AddressForm(Generic[Wish]):
    """What addresses of a channel look like. `read` raises InvalidRequest naming the field at fault."""

    wish: type[Wish]
    """The body of a request that registers one."""
    read: Callable[[Wish], Address]


class EmailWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An e-mail address of yours."""

    address: Annotated[str, Meta(max_length=254, examples=["ann@example.com"])]


class WebhookWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An https address of yours that takes webhooks."""

    url: Annotated[str, Meta(max_length=1000, examples=["https://hooks.example.com/darkroom"])]


class PushWish(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A subscription as the browser gives it: the JSON of its PushSubscription."""

    endpoint: Annotated[str, Meta(max_length=1000, examples=["https://push.example.com/send/f3a9"])]
    keys: PushKeys
    expiration_time: Annotated[float | None, Meta(description="Not used: the push service says when it ends.")] = None


class ChatWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A channel of a chat service, as the service names it: Discord, Slack, Telegram or Google Chat."""

    url: Annotated[
        str,
        Meta(
            max_length=1000,
            description="The webhook link of Discord, Slack or Google Chat, or tgram://BOT_TOKEN/CHAT; no options.",
            examples=["https://discord.com/api/webhooks/123456/token"],
        ),
    ]


class TextWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address of yours in the channel's own form; a refusal shows an example."""

    address: Annotated[str, Meta(min_length=1, max_length=1000)]


def text_address(pattern: str, example: str) -> AddressForm[TextWish]:
    """Addresses that a regular expression matches as a whole, for example telephone numbers. Nothing of one is shown
    beyond its first three characters."""
    form = re.compile(pattern)

    def read(wish: TextWish) -> Address:
        if not form.fullmatch(wish.address):
            raise InvalidRequest({"address": f"must be like this: {example}"})
        return Address(text=wish.address, shown=f"{wish.address[:3]}…")

    return AddressForm(TextWish, read)


def _read_email(wish: EmailWish) -> Address:
    address = _checked("address", read_email_address, wish.address)
    return Address(text=address, shown=shown_email_address(address))


def _read_webhook(wish: WebhookWish) -> Address:
    return Address(text=wish.url, shown=_checked("url", read_web_address, wish.url).shown)


def _read_push(wish: PushWish) -> Address:
    address = _checked("endpoint", read_endpoint, wish.endpoint)
    _checked("keys", read_keys, wish.keys)
    subscription = PushSubscription(endpoint=wish.endpoint, keys=wish.keys)
    return Address(text=msgspec.json.encode(subscription).decode(), shown=address.shown)


def _read_chat(wish: ChatWish) -> Address:
    return Address(text=wish.url, shown=_checked("url", read_chat_address, wish.url).shown)


def _checked(field: str, read: Callable[[Typed], Read], typed: Typed) -> Read:
    try:
        return read(typed)
    except AddressRefused as error:
        raise InvalidRequest({field: str(error)}) from error


EMAIL_ADDRESS = AddressForm(EmailWish, _read_email)
WEB_ADDRESS = AddressForm(WebhookWish, _read_webhook)
PUSH_SUBSCRIPTION = AddressForm(PushWish, _read_push)
CHAT_ADDRESS = AddressForm(ChatWish, _read_chat)
AnyForm = AddressForm[Any]
