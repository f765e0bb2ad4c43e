"""Where the caller registers its address on each channel. The routes are made from the mapping of channels."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import msgspec
from litestar import Controller, delete, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.json_bodies import strictly
from platform_api.http.problems import can_return
from platform_api.notifications.channel_views import ChannelView, SecretView, channel_view
from platform_api.notifications.channels import WRITE, ask
from storage.errors import WrongState
from storage.postgres.connection import Script
from storage.postgres.notifications import endpoints, sendings
from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.address_forms import Address
from storage.records.notifications.channels import OUTWARD, Channel, Outward
from storage.sealing import Seal
from storage.settings import variable_of
from storage.stores import AsyncStores


class ChannelAddresses(Controller):
    """Where the caller is notified outside the platform: a PUT and a DELETE for each channel."""

    path = "/notifications/channels"
    tags = ("Notifications",)


def put_route(channel: Channel, outward: Outward) -> HTTPRouteHandler:
    """What registers an address."""

    async def register(self: object, stores: AppStores, caller: RequestCaller, data: msgspec.Struct) -> object:
        settings = stores.settings.notifications
        if outward.setting and not getattr(settings, outward.setting):
            variable = variable_of("notifications", outward.setting)
            raise WrongState(f"This platform sends nothing by {channel}: its operator sets {variable}.")
        address, reader = outward.form.read(data), caller.account.number
        if outward.signed:
            return await _register_signed(stores, reader, channel, address)
        script = _register_confirmed if outward.confirmed else _register_active
        return await stores.database.run(lambda: script(Seal(settings), reader, channel, address))

    shown = SecretView if outward.signed else ChannelView
    register.__annotations__.update({"data": JSONBody[outward.form.wish], "return": shown})
    codes = (401, 403, *((409,) if outward.setting else ()), 413, 422, *((429,) if outward.confirmed else ()))
    return put(
        f"/{channel}",
        guards=[Requires(WRITE)],
        before_request=strictly(outward.form.wish),
        responses=can_return(*codes),
        summary=f"Register your {outward.called}",
        description=_about(outward),
    )(_named(register, f"put_{channel}"))


def delete_route(channel: Channel, outward: Outward) -> HTTPRouteHandler:
    """What forgets an address."""

    async def drop(self: object, stores: AppStores, caller: RequestCaller) -> None:
        await stores.database.run(endpoints.drop(caller.account.number, channel))

    return delete(
        f"/{channel}",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 404),
        summary=f"Forget your {outward.called}",
        description="Nothing more is sent there; what waits for it is suppressed.",
    )(_named(drop, f"drop_{channel}"))


def secret_route(channel: Channel, outward: Outward) -> HTTPRouteHandler:
    """What makes a new secret for the address of a channel that signs."""

    async def rotate(self: object, stores: AppStores, caller: RequestCaller) -> SecretView:
        settings, secret = stores.settings.notifications, new_secret()
        seal, overlap = Seal(settings), settings.secret_overlap_hours * 3600

        def script() -> Script[Endpoint]:
            rotated = yield from endpoints.rotate(caller.account.number, channel, seal.seal(secret), overlap)
            return (yield from endpoints.reseal(rotated, seal.renewed))

        return SecretView(secret=secret, old_until=(await stores.database.run(script)).old_until)

    return post(
        f"/{channel}/secret",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 404),
        status_code=200,
        summary=f"Make a new {outward.called} secret",
        description="For a while what is sent carries a signature of each, so that a receiver can change over without "
        "a gap.",
    )(_named(rotate, f"rotate_{channel}"))


def new_secret() -> str:
    """A secret in the form of Standard Webhooks, of 256 random bits."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


async def _register_signed(stores: AsyncStores, reader: int, channel: Channel, address: Address) -> SecretView:
    seal, secret = Seal(stores.settings.notifications), new_secret()
    await stores.database.run(
        endpoints.put(
            reader,
            channel,
            EndpointState.ACTIVE,
            address=seal.seal(address.text),
            shown=address.shown,
            secret=seal.seal(secret),
        )
    )
    return SecretView(secret=secret, old_until=None)


def _register_confirmed(seal: Seal, reader: int, channel: Channel, address: Address) -> Script[ChannelView]:
    """Register an address that is used when its owner has followed a link; one that is active already stays so."""
    paused = yield from sendings.paused()
    known = yield from endpoints.find(reader, channel)
    if known is not None and known.state is EndpointState.ACTIVE and seal.open(known.address) == address.text:
        return channel_view((yield from endpoints.reseal(known, seal.renewed)), paused)
    made = yield from _put(seal, reader, channel, EndpointState.UNCONFIRMED, address)
    yield from ask(Purpose.CONFIRM, made)
    return channel_view(made, paused)


def _register_active(seal: Seal, reader: int, channel: Channel, address: Address) -> Script[ChannelView]:
    """Register an address that needs no confirmation: whoever knows it may use it."""
    made = yield from _put(seal, reader, channel, EndpointState.ACTIVE, address)
    return channel_view(made, (yield from sendings.paused()))


def _put(seal: Seal, reader: int, channel: Channel, state: EndpointState, address: Address) -> Script[Endpoint]:
    sealed = seal.seal(address.text)
    return (yield from endpoints.put(reader, channel, state, address=sealed, shown=address.shown, secret=None))


def _about(outward: Outward) -> str:
    if outward.confirmed:
        return "The address gets one message with a link, and nothing else until that is confirmed."
    if outward.signed:
        return "Responds with the secret that it is signed with. An earlier address and its secret are forgotten."
    return "The address is its secret: it is sealed, and never shown again. An earlier one is forgotten."


def _named(handler: Any, name: str) -> Any:
    """A function under the name that the description's operation is called by."""
    handler.__name__ = name
    return handler


for _channel, _outward in OUTWARD.items():
    for _make in (put_route, delete_route, *((secret_route,) if _outward.signed else ())):
        _handler = _make(_channel, _outward)
        setattr(ChannelAddresses, _handler.handler_name, _handler)
