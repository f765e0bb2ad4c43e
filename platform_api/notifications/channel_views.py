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
from storage.records.notifications.channels import OUTWARD, Channel


class OutwardChannel(StrEnum):
    """A channel that has an address."""

    _ignore_ = "_channel"
    for _channel in OUTWARD:
        vars()[_channel.name] = _channel.value


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


class PushKeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who we are to push services (VAPID)."""

    application_server_key: Annotated[
        str, Meta(description="For `PushManager.subscribe`: our public key on P-256, in base64url.")
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
