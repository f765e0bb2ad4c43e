"""Addresses outside the platform as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import Parameter
from msgspec import Meta

from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.postgres.notifications.sendings import Purpose, Sending
from storage.records.notifications.notifications import Channel
from storage.records.notifications.push import PushKeys


class OutwardChannel(StrEnum):
    """A channel that has an address."""

    EMAIL = Channel.EMAIL.value
    WEBHOOK = Channel.WEBHOOK.value
    PUSH = Channel.PUSH.value
    CHAT = Channel.CHAT.value


Named = Annotated[OutwardChannel, Parameter(description="A channel that has an address.")]


class ChannelView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Your address on a channel. What is secret of it is not shown."""

    channel: OutwardChannel
    address: Annotated[str, Meta(examples=["a…@example.com"])]
    state: Annotated[EndpointState, Meta(description="Only an active address is sent anything.")]
    reason: Annotated[str | None, Meta(description="Why it is suspended. Register it again to use it again.")]
    created_at: datetime
    paused: Annotated[bool, Meta(description="The operator has paused the channel: what is due waits.")]


class ChannelList(msgspec.Struct, frozen=True, kw_only=True):
    """Your addresses."""

    items: list[ChannelView]


class EmailWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An e-mail address of yours."""

    address: Annotated[str, Meta(max_length=254, examples=["ann@example.com"])]


class WebhookWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An https address of yours that takes webhooks."""

    url: Annotated[str, Meta(max_length=1000, examples=["https://hooks.example.com/darkroom"])]


class PushWish(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A subscription as the browser sends it: the JSON of its PushSubscription."""

    endpoint: Annotated[str, Meta(max_length=1000, examples=["https://push.example.com/send/f3a9"])]
    keys: PushKeys
    expiration_time: Annotated[float | None, Meta(description="Not used: the push service says when it ends.")] = None


class PushKeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who we are to push services (VAPID)."""

    application_server_key: Annotated[
        str, Meta(description="For `PushManager.subscribe`: our public key on P-256, in base64url.")
    ]


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


class SecretView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What webhooks are signed with (Standard Webhooks), shown this once. Until `old_until` the old one signs too."""

    secret: Annotated[str, Meta(examples=["whsec_..."])]
    old_until: datetime | None


class SendingView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One e-mail, webhook call, push or chat message. Receivers find its id in Message-ID, `webhook-id` or the tag."""

    id: UUID
    channel: OutwardChannel
    purpose: Purpose
    attempts: int
    last_error: str | None
    created_at: datetime
    ended_at: datetime | None


class SendingList(msgspec.Struct, frozen=True, kw_only=True):
    """Some sendings, the newest first."""

    items: list[SendingView]


def channel_view(endpoint: Endpoint, paused: list[Channel]) -> ChannelView:
    """An address, without what is secret of it."""
    return ChannelView(
        channel=OutwardChannel(endpoint.channel),
        address=endpoint.shown,
        state=endpoint.state,
        reason=endpoint.reason,
        created_at=endpoint.created_at,
        paused=endpoint.channel in paused,
    )


def sending_view(sending: Sending) -> SendingView:
    """A sending of the caller's."""
    return SendingView(
        id=sending.id,
        channel=OutwardChannel(sending.channel),
        purpose=sending.purpose,
        attempts=sending.attempts,
        last_error=sending.last_error,
        created_at=sending.created_at,
        ended_at=sending.ended_at,
    )
