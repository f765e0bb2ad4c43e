"""Where the caller is told outside the platform: e-mail and webhook, their tests and secrets, and what was given up."""

from __future__ import annotations

import base64
import secrets
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.params import Parameter
from msgspec import Meta

from platform_api.access import Caller, Requires
from platform_api.bodies import strictly
from platform_api.problems import can_answer
from storage.errors import AddressRefused, InvalidRequest, TooManyRequests, WrongState
from storage.postgres import endpoints, sendings
from storage.postgres.connection import Script
from storage.postgres.endpoints import Endpoint, EndpointState
from storage.postgres.sendings import Purpose, Sending
from storage.records.access import Scope
from storage.records.addresses import read_email_address, read_web_address, shown_email_address
from storage.records.notifications import Channel
from storage.sealing import Seal
from storage.stores import AsyncStores

READ, WRITE = Scope.NOTIFICATIONS_READ, Scope.NOTIFICATIONS_WRITE
ASKED_AT_MOST = 3
"""Confirmations and tests that one reader may ask for in a minute: they reach whoever owns the address."""


class OutwardChannel(StrEnum):
    """A channel that has an address."""

    EMAIL = Channel.EMAIL.value
    WEBHOOK = Channel.WEBHOOK.value


Named = Annotated[OutwardChannel, Parameter(description="A channel that has an address.")]


class ChannelView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Your address on a channel. What is secret of it is not shown."""

    channel: OutwardChannel
    address: Annotated[str, Meta(examples=["a…@example.com"])]
    state: Annotated[EndpointState, Meta(description="Only an active address is told anything.")]
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


class SecretView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What webhooks are signed with (Standard Webhooks), shown this once. Until `old_until` the old one signs too."""

    secret: Annotated[str, Meta(examples=["whsec_..."])]
    old_until: datetime | None


class SendingView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One e-mail or webhook call. Receivers find its id in `webhook-id` or in the Message-ID."""

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


class NotificationChannels(Controller):
    """Where the caller is told outside the platform."""

    path = "/notifications"
    tags = ("Notifications",)

    @get("/channels", guards=[Requires(READ)], responses=can_answer(401, 403), summary="Your addresses")
    async def channels(self, stores: AsyncStores, caller: Caller) -> ChannelList:
        """One for each channel that you have registered."""

        def script() -> Script[ChannelList]:
            paused = yield from sendings.paused()
            found = yield from endpoints.of_reader(caller.account.number)
            return ChannelList(items=[_view(one, paused) for one in found])

        return await stores.database.run(script())

    @put(
        "/channels/email",
        guards=[Requires(WRITE)],
        before_request=strictly(EmailWish),
        responses=can_answer(401, 403, 409, 413, 422, 429),
        summary="Register your e-mail address",
    )
    async def put_email(self, stores: AsyncStores, caller: Caller, data: EmailWish) -> ChannelView:
        """The address gets one e-mail with a link, and nothing else until that is confirmed."""
        if not stores.settings.notifications.smtp_host:
            raise WrongState("This platform sends no e-mail: its operator sets DARKROOM_NOTIFICATIONS__SMTP_HOST.")
        address, seal, reader = _checked_email(data.address), Seal(stores.settings.notifications), caller.account.number

        def script() -> Script[ChannelView]:
            paused = yield from sendings.paused()
            known = yield from endpoints.find(reader, Channel.EMAIL)
            if known is not None and known.state is EndpointState.ACTIVE and seal.open(known.address) == address:
                return _view(known, paused)
            sealed, shown = seal.seal(address), shown_email_address(address)
            unconfirmed = EndpointState.UNCONFIRMED
            made = yield from endpoints.put(
                reader, Channel.EMAIL, unconfirmed, address=sealed, shown=shown, secret=None
            )
            yield from _ask(Purpose.CONFIRM, made)
            return _view(made, paused)

        return await stores.database.run(script())

    @put(
        "/channels/webhook",
        guards=[Requires(WRITE)],
        before_request=strictly(WebhookWish),
        responses=can_answer(401, 403, 413, 422),
        summary="Register your webhook",
    )
    async def put_webhook(self, stores: AsyncStores, caller: Caller, data: WebhookWish) -> SecretView:
        """The secret that it is signed with. An earlier webhook and its secret are forgotten."""
        try:
            address = read_web_address(data.url)
        except AddressRefused as error:
            raise InvalidRequest({"url": str(error)}) from error
        seal, secret = Seal(stores.settings.notifications), new_secret()
        put_active = endpoints.put(
            caller.account.number,
            Channel.WEBHOOK,
            EndpointState.ACTIVE,
            address=seal.seal(data.url),
            shown=address.shown,
            secret=seal.seal(secret),
        )
        await stores.database.run(put_active)
        return SecretView(secret=secret, old_until=None)

    @post(
        "/channels/webhook/secret",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        status_code=200,
        summary="Make a new webhook secret",
    )
    async def rotate(self, stores: AsyncStores, caller: Caller) -> SecretView:
        """For a while webhooks carry a signature of each, so that a receiver can change over without a gap."""
        told, secret = stores.settings.notifications, new_secret()
        sealed = Seal(told).seal(secret)
        query = endpoints.rotate(caller.account.number, sealed, told.secret_overlap_hours * 3600)
        return SecretView(secret=secret, old_until=(await stores.database.run(query)).old_until)

    @delete(
        "/channels/email",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your e-mail address",
    )
    async def drop_email(self, stores: AsyncStores, caller: Caller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.EMAIL))

    @delete(
        "/channels/webhook",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your webhook",
    )
    async def drop_webhook(self, stores: AsyncStores, caller: Caller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.WEBHOOK))

    @post(
        "/channels/{channel:str}/test",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404, 409, 422, 429),
        status_code=202,
        summary="Try an address out",
    )
    async def test(self, stores: AsyncStores, caller: Caller, channel: Named) -> SendingView:
        """Sends a test there, in the way of everything else: with pauses between tries, and given up in the end."""

        def script() -> Script[SendingView]:
            found = yield from endpoints.get(caller.account.number, Channel(channel))
            if found.state is not EndpointState.ACTIVE:
                raise WrongState(f"Your address is {found.state}. Confirm it, or register it again.")
            return _sending((yield from _ask(Purpose.TEST, found)))

        return await stores.database.run(script())

    @get("/dead-letters", guards=[Requires(READ)], responses=can_answer(401, 403), summary="What was given up")
    async def dead_letters(self, stores: AsyncStores, caller: Caller) -> SendingList:
        """Up to 100 of your sendings that could not be made, the newest first."""
        found = await stores.database.run(sendings.dead(reader=caller.account.number))
        return SendingList(items=[_sending(one) for one in found])

    @post(
        "/dead-letters/{sending_id:uuid}/replay",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        status_code=202,
        summary="Send it after all",
    )
    async def replay(self, stores: AsyncStores, caller: Caller, sending_id: UUID) -> SendingView:
        """Makes it due again, under the same id. It goes to the address that you have now."""
        return _sending(await stores.database.run(sendings.replay(sending_id, caller.account.number)))


def new_secret() -> str:
    """A webhook secret in the form of Standard Webhooks, of 256 random bits."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _checked_email(text: str) -> str:
    try:
        return read_email_address(text)
    except AddressRefused as error:
        raise InvalidRequest({"address": str(error)}) from error


def _ask(purpose: Purpose, endpoint: Endpoint) -> Script[Sending]:
    if (yield from sendings.recent(endpoint.reader)) >= ASKED_AT_MOST:
        raise TooManyRequests(f"{ASKED_AT_MOST} confirmations and tests in a minute are enough. Wait a little.", 60)
    return (yield from sendings.add(purpose, endpoint.reader, endpoint.channel, endpoint.id))


def _view(endpoint: Endpoint, paused: list[Channel]) -> ChannelView:
    return ChannelView(
        channel=OutwardChannel(endpoint.channel),
        address=endpoint.shown,
        state=endpoint.state,
        reason=endpoint.reason,
        created_at=endpoint.created_at,
        paused=endpoint.channel in paused,
    )


def _sending(sending: Sending) -> SendingView:
    return SendingView(
        id=sending.id,
        channel=OutwardChannel(sending.channel),
        purpose=sending.purpose,
        attempts=sending.attempts,
        last_error=sending.last_error,
        created_at=sending.created_at,
        ended_at=sending.ended_at,
    )
