"""Where the caller is notified outside the platform: addresses, their tests and secrets, and what was given up."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Caller, Requires
from platform_api.http.json_bodies import strictly
from platform_api.http.problems import can_answer
from platform_api.notifications.channel_views import (
    ChannelList,
    ChannelView,
    ChatWish,
    EmailWish,
    Named,
    PushKeyView,
    PushWish,
    SecretView,
    SendingList,
    SendingView,
    WebhookWish,
    channel_view,
    sending_view,
)
from storage.errors import AddressRefused, InvalidRequest, TooManyRequests, WrongState
from storage.postgres.connection import Script
from storage.postgres.notifications import endpoints, sendings
from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.postgres.notifications.sendings import Purpose, Sending
from storage.push_key import public_push_key
from storage.records.accounts.accounts import Scope
from storage.records.notifications.addresses import read_email_address, read_web_address, shown_email_address
from storage.records.notifications.chat import read_chat_address
from storage.records.notifications.notifications import Channel
from storage.records.notifications.push import PushSubscription, read_endpoint, read_keys
from storage.sealing import Seal
from storage.stores import AsyncStores

Typed = TypeVar("Typed")
Read = TypeVar("Read")

READ, WRITE = Scope.NOTIFICATIONS_READ, Scope.NOTIFICATIONS_WRITE
MAX_CONFIRMATIONS_A_MINUTE = 3
"""Confirmations and tests that one reader may ask for in a minute: they reach whoever owns the address."""


class NotificationChannels(Controller):
    """Where the caller is notified outside the platform."""

    path = "/notifications"
    tags = ("Notifications",)

    @get("/channels", guards=[Requires(READ)], responses=can_answer(401, 403), summary="Your addresses")
    async def channels(self, stores: AppStores, caller: RequestCaller) -> ChannelList:
        """One for each channel that you have registered."""

        def script() -> Script[ChannelList]:
            paused = yield from sendings.paused()
            found = yield from endpoints.of_reader(caller.account.number)
            return ChannelList(items=[channel_view(one, paused) for one in found])

        return await stores.database.run(script)

    @put(
        "/channels/email",
        guards=[Requires(WRITE)],
        before_request=strictly(EmailWish),
        responses=can_answer(401, 403, 409, 413, 422, 429),
        summary="Register your e-mail address",
    )
    async def put_email(self, stores: AppStores, caller: RequestCaller, data: JSONBody[EmailWish]) -> ChannelView:
        """The address gets one e-mail with a link, and nothing else until that is confirmed."""
        if not stores.settings.notifications.smtp_host:
            raise WrongState("This platform sends no e-mail: its operator sets DARKROOM_NOTIFICATIONS__SMTP_HOST.")
        address = _checked("address", read_email_address, data.address)
        seal, reader = Seal(stores.settings.notifications), caller.account.number

        def script() -> Script[ChannelView]:
            paused = yield from sendings.paused()
            known = yield from endpoints.find(reader, Channel.EMAIL)
            if known is not None and known.state is EndpointState.ACTIVE and seal.open(known.address) == address:
                return channel_view((yield from endpoints.reseal(known, seal.renewed)), paused)
            sealed, shown = seal.seal(address), shown_email_address(address)
            unconfirmed = EndpointState.UNCONFIRMED
            made = yield from endpoints.put(
                reader, Channel.EMAIL, unconfirmed, address=sealed, shown=shown, secret=None
            )
            yield from _ask(Purpose.CONFIRM, made)
            return channel_view(made, paused)

        return await stores.database.run(script)

    @put(
        "/channels/webhook",
        guards=[Requires(WRITE)],
        before_request=strictly(WebhookWish),
        responses=can_answer(401, 403, 413, 422),
        summary="Register your webhook",
    )
    async def put_webhook(self, stores: AppStores, caller: RequestCaller, data: JSONBody[WebhookWish]) -> SecretView:
        """The secret that it is signed with. An earlier webhook and its secret are forgotten."""
        address = _checked("url", read_web_address, data.url)
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
    async def rotate(self, stores: AppStores, caller: RequestCaller) -> SecretView:
        """For a while webhooks carry a signature of each, so that a receiver can change over without a gap."""
        notifying, secret = stores.settings.notifications, new_secret()
        seal, overlap = Seal(notifying), notifying.secret_overlap_hours * 3600

        def script() -> Script[Endpoint]:
            rotated = yield from endpoints.rotate(caller.account.number, seal.seal(secret), overlap)
            return (yield from endpoints.reseal(rotated, seal.renewed))

        return SecretView(secret=secret, old_until=(await stores.database.run(script)).old_until)

    @get(
        "/channels/push/key",
        guards=[Requires(READ)],
        responses=can_answer(401, 403),
        summary="The key that a browser subscribes with",
    )
    async def push_key(self, stores: AppStores) -> PushKeyView:
        """The same for every browser, as long as the platform keeps its sealing key."""
        return PushKeyView(application_server_key=public_push_key(stores.settings.notifications))

    @put(
        "/channels/push",
        guards=[Requires(WRITE)],
        before_request=strictly(PushWish),
        responses=can_answer(401, 403, 413, 422),
        summary="Register your browser's push subscription",
    )
    async def put_push(self, stores: AppStores, caller: RequestCaller, data: JSONBody[PushWish]) -> ChannelView:
        """The browser's own JSON, as `PushManager.subscribe` returns it. An earlier browser is told nothing any
        more."""
        address = _checked("endpoint", read_endpoint, data.endpoint)
        _checked("keys", read_keys, data.keys)
        subscription = msgspec.json.encode(PushSubscription(endpoint=data.endpoint, keys=data.keys)).decode()
        return await stores.database.run(lambda: _put(stores, caller, Channel.PUSH, subscription, address.shown))

    @put(
        "/channels/chat",
        guards=[Requires(WRITE)],
        before_request=strictly(ChatWish),
        responses=can_answer(401, 403, 413, 422),
        summary="Register a chat channel",
    )
    async def put_chat(self, stores: AppStores, caller: RequestCaller, data: JSONBody[ChatWish]) -> ChannelView:
        """Its address is its secret: whoever knows it may write there. It is sealed, and never shown again."""
        address = _checked("url", read_chat_address, data.url)
        return await stores.database.run(lambda: _put(stores, caller, Channel.CHAT, data.url, address.shown))

    @delete(
        "/channels/email",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your e-mail address",
    )
    async def drop_email(self, stores: AppStores, caller: RequestCaller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.EMAIL))

    @delete(
        "/channels/webhook",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your webhook",
    )
    async def drop_webhook(self, stores: AppStores, caller: RequestCaller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.WEBHOOK))

    @delete(
        "/channels/push",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your push subscription",
    )
    async def drop_push(self, stores: AppStores, caller: RequestCaller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.PUSH))

    @delete(
        "/channels/chat",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        summary="Forget your chat channel",
    )
    async def drop_chat(self, stores: AppStores, caller: RequestCaller) -> None:
        """Nothing more is sent there; what waits for it is suppressed."""
        await stores.database.run(endpoints.drop(caller.account.number, Channel.CHAT))

    @post(
        "/channels/{channel:str}/test",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404, 409, 422, 429),
        status_code=202,
        summary="Try an address out",
    )
    async def test(self, stores: AppStores, caller: RequestCaller, channel: FromPath[Named]) -> SendingView:
        """Sends a test there, in the way of everything else: with pauses between tries, and given up in the end."""

        def script() -> Script[SendingView]:
            found = yield from endpoints.get(caller.account.number, Channel(channel))
            if found.state is not EndpointState.ACTIVE:
                raise WrongState(f"Your address is {found.state}. Confirm it, or register it again.")
            return sending_view((yield from _ask(Purpose.TEST, found)))

        return await stores.database.run(script)

    @get("/dead-letters", guards=[Requires(READ)], responses=can_answer(401, 403), summary="What was given up")
    async def dead_letters(self, stores: AppStores, caller: RequestCaller) -> SendingList:
        """Up to 100 of your sendings that could not be made, the newest first."""
        found = await stores.database.run(sendings.dead(reader=caller.account.number))
        return SendingList(items=[sending_view(one) for one in found])

    @post(
        "/dead-letters/{sending_id:uuid}/replay",
        guards=[Requires(WRITE)],
        responses=can_answer(401, 403, 404),
        status_code=202,
        summary="Send it after all",
    )
    async def replay(self, stores: AppStores, caller: RequestCaller, sending_id: FromPath[UUID]) -> SendingView:
        """Makes it due again, under the same id. It goes to the address that you have now."""
        return sending_view(await stores.database.run(lambda: sendings.replay(sending_id, caller.account.number)))


def new_secret() -> str:
    """A webhook secret in the form of Standard Webhooks, of 256 random bits."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _checked(field: str, read: Callable[[Typed], Read], typed: Typed) -> Read:
    try:
        return read(typed)
    except AddressRefused as error:
        raise InvalidRequest({field: str(error)}) from error


def _put(stores: AsyncStores, caller: Caller, channel: Channel, address: str, shown: str) -> Script[ChannelView]:
    """Register an address that needs no confirmation: whoever knows it may use it."""
    sealed = Seal(stores.settings.notifications).seal(address)
    active = EndpointState.ACTIVE
    made = yield from endpoints.put(caller.account.number, channel, active, address=sealed, shown=shown, secret=None)
    return channel_view(made, (yield from sendings.paused()))


def _ask(purpose: Purpose, endpoint: Endpoint) -> Script[Sending]:
    if (yield from sendings.recent(endpoint.reader)) >= MAX_CONFIRMATIONS_A_MINUTE:
        raise TooManyRequests(
            f"{MAX_CONFIRMATIONS_A_MINUTE} confirmations and tests in a minute are enough. Wait a little.", 60
        )
    return (yield from sendings.add(purpose, endpoint.reader, endpoint.channel, endpoint.id))
