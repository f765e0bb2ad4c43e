"""Where the caller is notified outside the platform: addresses, their tests and secrets, and what was given up."""

from __future__ import annotations

from uuid import UUID

from litestar import Controller, get, post
from litestar.params import FromPath

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.problems import can_return
from platform_api.notifications.channel_views import (
    ChannelList,
    Named,
    PushKeyView,
    SendingList,
    SendingView,
    channel_view,
    sending_view,
)
from storage.errors import TooManyRequests, WrongState
from storage.postgres.connection import Script
from storage.postgres.notifications import endpoints, sendings
from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.postgres.notifications.sendings import Purpose, Sending
from storage.push_key import public_push_key
from storage.records.accounts.accounts import Scope
from storage.records.notifications.channels import Channel

READ, WRITE = Scope.NOTIFICATIONS_READ, Scope.NOTIFICATIONS_WRITE
MAX_CONFIRMATIONS_A_MINUTE = 3
"""Confirmations and tests that one reader may ask for in a minute: they reach whoever owns the address."""


class NotificationChannels(Controller):
    """Where the caller is notified outside the platform."""

    path = "/notifications"
    tags = ("Notifications",)

    @get("/channels", guards=[Requires(READ)], responses=can_return(401, 403), summary="Your addresses")
    async def channels(self, stores: AppStores, caller: RequestCaller) -> ChannelList:
        """One for each channel that you have registered."""

        def script() -> Script[ChannelList]:
            paused = yield from sendings.paused()
            found = yield from endpoints.of_reader(caller.account.number)
            return ChannelList(items=[channel_view(one, paused) for one in found])

        return await stores.database.run(script)

    @get(
        "/channels/push/key",
        guards=[Requires(READ)],
        responses=can_return(401, 403),
        summary="The key that a browser subscribes with",
    )
    async def push_key(self, stores: AppStores) -> PushKeyView:
        """The same for every browser, as long as the platform keeps its sealing key."""
        return PushKeyView(application_server_key=public_push_key(stores.settings.notifications))

    @post(
        "/channels/{channel:str}/test",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 404, 409, 422, 429),
        status_code=202,
        summary="Try an address out",
    )
    async def test(self, stores: AppStores, caller: RequestCaller, channel: FromPath[Named]) -> SendingView:
        """Sends a test there, in the way of everything else: with pauses between tries, and given up in the end."""

        def script() -> Script[SendingView]:
            found = yield from endpoints.get(caller.account.number, Channel(channel))
            if found.state is not EndpointState.ACTIVE:
                raise WrongState(f"Your address is {found.state}. Confirm it, or register it again.")
            return sending_view((yield from ask(Purpose.TEST, found)))

        return await stores.database.run(script)

    @get("/dead-letters", guards=[Requires(READ)], responses=can_return(401, 403), summary="What was given up")
    async def dead_letters(self, stores: AppStores, caller: RequestCaller) -> SendingList:
        """Up to 100 of your sendings that could not be made, the newest first."""
        found = await stores.database.run(sendings.dead(reader=caller.account.number))
        return SendingList(items=[sending_view(one) for one in found])

    @post(
        "/dead-letters/{sending_id:uuid}/replay",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 404),
        status_code=202,
        summary="Send it after all",
    )
    async def replay(self, stores: AppStores, caller: RequestCaller, sending_id: FromPath[UUID]) -> SendingView:
        """Makes it due again, under the same id. It goes to the address that you have now."""
        return sending_view(await stores.database.run(lambda: sendings.replay(sending_id, caller.account.number)))


def ask(purpose: Purpose, endpoint: Endpoint) -> Script[Sending]:
    """A sending that its reader asked for. Raises TooManyRequests when it asks for many."""
    if (yield from sendings.recent(endpoint.reader)) >= MAX_CONFIRMATIONS_A_MINUTE:
        raise TooManyRequests(
            f"{MAX_CONFIRMATIONS_A_MINUTE} confirmations and tests in a minute are enough. Wait a little.", 60
        )
    return (yield from sendings.add(purpose, endpoint.reader, Channel(endpoint.channel), endpoint.id))
