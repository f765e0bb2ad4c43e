"""Deliveries that leave the platform: which are due, which wait for another time, which go into a sending together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from uuid import UUID

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many, one
from storage.postgres.locks import lock_number
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import Frequency

SQL = load_statements(__file__)

_GATHERING = "gathering of deliveries"
_KNOWN = {"channels": list(Channel)}
"""A release that does not know a channel leaves its deliveries alone: a later one may run beside it."""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery whose time has come, and what decides about it. `folds`: it was postponed, so it joins others."""

    id: int
    reader: int
    channel: Channel
    due_at: datetime
    frequency: Frequency
    folds: bool
    created_at: datetime
    type: str
    unwanted: bool
    banned: bool
    endpoint: str
    zone: str
    quiet_from: time | None
    quiet_to: time | None


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """When one reader is notified on one channel what waits a moment for more of its type."""

    reader: int
    channel: Channel
    type: str
    due_at: datetime


class DeliveryLag(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries due and not gathered, sendings due, the age in seconds of what is late, and sendings given up.

    `of_other_releases`: deliveries and sendings due on channels that this release does not know, which
    no other field counts.
    """

    waiting: int
    sendings: int
    oldest_seconds: float
    dead_letters: int
    of_other_releases: int


def gather_alone() -> Query[bool]:
    """Whether this transaction may gather: one does at a time."""
    return Query(SQL["gather_alone"], {"lock": lock_number(_GATHERING)}, lambda rows: bool(rows[0]["alone"]))


def due(now: datetime, limit: int) -> Query[list[Due]]:
    """What is due at `now`, the oldest first; what goes to one reader on one channel at one time stands together."""
    return many(SQL["due"], {"now": now, "limit": limit, **_KNOWN}, Due)


def settling(now: datetime, asked: Iterable[Due]) -> Query[list[Settling]]:
    """What the readers of these wait for at `now`, on the same channels."""
    pairs = sorted({(one.reader, one.channel) for one in asked})
    readers, channels = [reader for reader, _ in pairs], [channel for _, channel in pairs]
    return many(SQL["settling"], {"now": now, "readers": readers, "channels": channels}, Settling)


def postpone(later: Mapping[Due, datetime]) -> Query[list[int]]:
    """Send these at another time, together with what is due then."""
    return column(SQL["postpone"], {**_rows(later), "moments": list(later.values())}, int)


def suppress(unwanted: Mapping[Due, str]) -> Query[list[int]]:
    """Never send these, for a reason each."""
    return column(SQL["suppress"], {**_rows(unwanted), "reasons": list(unwanted.values())}, int)


def put_into_sendings(messages: Mapping[UUID, Sequence[Due]]) -> Script[None]:
    """Make these sendings, each for some deliveries of one reader on one channel."""
    first = _rows([message[0] for message in messages.values()])
    yield from column(SQL["add_sendings"], {**first, "sendings": list(messages)}, UUID)
    placed = [(one, sending) for sending, message in messages.items() for one in message]
    rows = _rows([one for one, _ in placed])
    yield from column(SQL["put_into"], {**rows, "sendings": [sending for _, sending in placed]}, int)


def wanted(flow: str) -> Script[int | None]:
    """The number of the run that should send now; None when nothing is due or one holds the lock `flow`."""
    numbers = yield from column(SQL["wanted"], {"flow": flow, "lock": lock_number(flow), **_KNOWN}, int)
    return numbers[0] if numbers else None


def next_due() -> Query[float | None]:
    """In how many seconds the next delivery or sending is due; None when nothing waits."""
    return Query(SQL["next_due"], _KNOWN, lambda rows: rows[0]["seconds"])


def lag() -> Query[DeliveryLag]:
    """How far sending is behind."""
    return one(SQL["lag"], _KNOWN, DeliveryLag, "the lag")


def _rows(found: Iterable[Due]) -> dict[str, list[object]]:
    """The columns by which the index of due deliveries finds these."""
    rows = list(found)
    return {
        "due_ats": [row.due_at for row in rows],
        "readers": [row.reader for row in rows],
        "channels": [row.channel for row in rows],
        "ids": [row.id for row in rows],
    }
