"""Where readers are notified outside the platform. Addresses and secrets come and go sealed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.records.notifications.channels import Channel

SQL = load_statements(__file__)


class EndpointState(StrEnum):
    """Whether an address is used: not before it is confirmed, and not after it was refused for good."""

    UNCONFIRMED = "unconfirmed"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A reader's address on one channel. `shown` is what may be shown of it; the rest is sealed.

    `channel` may also be one that this release does not know: a later one runs beside it, or an earlier one had it.
    """

    id: UUID
    reader: int
    channel: str
    state: EndpointState
    reason: str | None
    address: bytes
    shown: str
    secret: bytes | None
    old_secret: bytes | None
    old_until: datetime | None
    created_at: datetime


def put(
    reader: int, channel: Channel, state: EndpointState, *, address: bytes, shown: str, secret: bytes | None
) -> Query[Endpoint]:
    """Register a reader's address on a channel, instead of any that it had there."""
    parameters = {"reader": reader, "channel": channel, "state": state, "address": address, "shown": shown}
    return one(SQL["put"], {**parameters, "secret": secret}, Endpoint, "the endpoint")


def of_reader(reader: int) -> Query[list[Endpoint]]:
    """Every address of a reader on a channel that this release knows."""
    return many(SQL["of_reader"], {"reader": reader, "channels": list(Channel)}, Endpoint)


def all_held() -> Query[list[Endpoint]]:
    """Every address of everybody, held until the transaction ends."""
    return many(SQL["all"], {}, Endpoint)


def find(reader: int, channel: Channel) -> Query[Endpoint | None]:
    """A reader's address on a channel, if it has one."""
    return maybe(SQL["one"], {"reader": reader, "channel": channel}, Endpoint)


def get(reader: int, channel: Channel) -> Query[Endpoint]:
    """A reader's address on a channel. Reading raises NotFound."""
    return one(SQL["one"], {"reader": reader, "channel": channel}, Endpoint, _missing(channel))


def drop(reader: int, channel: Channel) -> Query[Endpoint]:
    """Forget a reader's address on a channel. Reading raises NotFound."""
    return one(SQL["drop"], {"reader": reader, "channel": channel}, Endpoint, _missing(channel))


def confirm(endpoint_id: UUID) -> Query[Endpoint]:
    """An address is its reader's own. Reading raises NotFound when it is another by now, or suspended."""
    return one(SQL["confirm"], {"id": endpoint_id}, Endpoint, "The address was changed or removed since. Register it.")


def suspend(endpoint_id: UUID, reason: str) -> Query[list[UUID]]:
    """Use an address no more."""
    return column(SQL["suspend"], {"id": endpoint_id, "reason": reason[:500]}, UUID)


def rotate(reader: int, channel: Channel, secret: bytes, overlap_seconds: float) -> Query[Endpoint]:
    """Sign with a new secret, and for a while with the old one too. Reading raises NotFound."""
    parameters = {"reader": reader, "channel": channel, "secret": secret, "overlap": overlap_seconds}
    return one(SQL["rotate"], parameters, Endpoint, _missing(channel))


def reseal(endpoint: Endpoint, renewed: Callable[[bytes], bytes]) -> Script[Endpoint]:
    """An address with its secrets sealed again; one that was changed meanwhile stays."""
    sealed = {"address": endpoint.address, "secret": endpoint.secret, "old_secret": endpoint.old_secret}
    fresh = {name: None if value is None else renewed(value) for name, value in sealed.items()}
    parameters = {**fresh, "id": endpoint.id, "was_address": endpoint.address, "was_secret": endpoint.secret}
    return (yield from maybe(SQL["reseal"], parameters, Endpoint)) or endpoint


def _missing(channel: Channel) -> str:
    return f"You have registered no address for {channel}. Put one first."
