"""Notifications: events that readers are notified of, and their fan-out to one delivery for each reader and channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.postgres.connection import (
    Query,
    Rows,
    Script,
    column,
    count,
    load_statements,
    lock_number,
    many,
    maybe,
    one,
)
from storage.records.notifications.channels import OUTWARD, Channel
from storage.records.notifications.notifications import (
    MILESTONES,
    TYPES,
    Audience,
    Content,
    Frequency,
    Notification,
    NotificationText,
)
from storage.records.social.social import Subject

SQL = load_statements(__file__)

CHUNK = 100_000
"""Readers whose deliveries one transaction writes."""
FEW = 100
"""Up to so many readers are woken by name."""
_ORDER = "fan-out of notifications"


class FanOutLag(msgspec.Struct, frozen=True, kw_only=True):
    """How many notifications are not delivered to all of their readers, the age in seconds of the oldest, and how many
    cannot be delivered."""

    waiting: int
    oldest_seconds: float
    failed: int


class FailedNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that cannot be delivered, and why."""

    id: int
    key: str
    type: str
    error: str
    created_at: datetime


class CommentedOn(msgspec.Struct, frozen=True, kw_only=True):
    """What a comment is on: whose it is and what it is called. An image has no model that a page could be of."""

    number: int
    account_id: UUID
    name: str
    model_id: int | None


def add(key: str, content: Content, readers: Iterable[int] | None = None) -> Query[list[int]]:
    """Notify some readers, by their accounts' numbers, or everybody; returns the id, none when `key` was added before.

    Also none when the type is one that readers must ask for and none of them has.
    """
    details = msgspec.to_builtins(content)
    kind = details.pop("type")
    parameters = {
        "key": key,
        "type": kind,
        "details": Jsonb(details),
        "audience": Audience.EVERYONE if readers is None else Audience.ACCOUNTS,
        "readers": [] if readers is None else sorted(set(readers)),
        "default": any(frequency is not Frequency.NEVER for frequency in TYPES[kind].default_frequencies.values()),
    }
    return column(SQL["add"], parameters, int)


def notify_moderators(key: str, content: Content) -> Script[list[int]]:
    """Notify those who keep order; returns the id, none when there is nobody or `key` was added before."""
    moderators = yield from column(SQL["moderators"], {}, int)
    return (yield from add(key, content, moderators)) if moderators else []


def add_published(model_ids: Sequence[int]) -> Query[list[int]]:
    """Notify the followers of their owners of the newest versions of these models, each once, while they are new."""
    return column(SQL["add_published"], {"ids": list(model_ids)}, int)


def add_milestones(model_ids: Sequence[int]) -> Query[list[int]]:
    """Notify owners of the counts that their models have reached, the highest alone, each once."""
    return column(SQL["add_milestones"], {"ids": list(model_ids), "milestones": list(MILESTONES)}, int)


def commented_on(entity: Subject, entity_id: int) -> Query[CommentedOn]:
    """What a comment is on. Reading raises NotFound."""
    return one(SQL["commented_on"], {"entity": entity, "id": entity_id}, CommentedOn, f"No {entity} {entity_id}.")


def waiting() -> Query[Notification | None]:
    """The oldest notification that is not delivered to all of its readers."""
    return maybe(SQL["waiting"], {}, Notification)


def begin(notification: Notification, text: NotificationText) -> Query[list[int]]:
    """Write a notification's text, before anybody can read it."""
    parameters = {"id": notification.id, "title": text.title, "text": text.text, "path": text.path}
    return column(SQL["begin"], parameters, int)


def fail(notification: Notification, error: str) -> Query[list[int]]:
    """Note that a notification cannot be delivered; it holds up no other."""
    return column(SQL["fail"], {"id": notification.id, "error": error[:2000]}, int)


def fan_out_chunk(notification: Notification, limit: int = CHUNK) -> Script[bool]:
    """Write the deliveries of the next `limit` readers with the cursor behind them; returns whether more may follow.

    Whoever opted out is left out by the statements themselves. In-app deliveries are sent with this.
    """
    # Until the commit: ids are given out now and seen then, and a stream that remembers the last one must miss none.
    yield from column(SQL["lock"], {"lock": lock_number(_ORDER)}, int)
    reached = yield from column(SQL["reached"], {"id": notification.id}, int)
    if not reached:
        return False
    whom = {"audience": notification.audience, "readers": list(notification.readers), "reached": reached[0]}
    ends = "chunk_end_of_all" if notification.audience is Audience.EVERYONE else "chunk_end"
    last = yield from Query(SQL[ends], {**whom, "limit": limit}, _last)
    # Asked by a look of its own, since a chunk may hold only readers who want nothing and write no row.
    if last is None:
        yield from column(SQL["done"], {"id": notification.id}, int)
        return False
    defaults = TYPES[notification.type].default_frequencies
    where = {**whom, "id": notification.id, "type": notification.type, "last": last}
    yield from column(SQL["notify_in_app"], {**where, "default": defaults[Channel.IN_APP]}, int)
    outward = {"channels": list(OUTWARD), "frequencies": [defaults[channel] for channel in OUTWARD]}
    yield from column(SQL["notify_outward"], {**where, **outward}, int)
    few = notification.audience is Audience.ACCOUNTS and len(notification.readers) <= FEW
    yield from column(SQL["announce"], {"id": notification.id, "few": few}, str)
    yield from column(SQL["advance"], {"id": notification.id, "last": last}, int)
    return True


def _last(rows: Rows) -> int | None:
    return rows[0]["last"]


def fan_out_wanted(flow: str) -> Script[int | None]:
    """The number of the run that should fan out now; None when nothing waits or one holds the lock `flow`."""
    numbers = yield from column(SQL["fan_out_wanted"], {"flow": flow, "lock": lock_number(flow)}, int)
    return numbers[0] if numbers else None


def lag() -> Query[FanOutLag]:
    """How far the fan-out is behind."""
    return one(SQL["lag"], {}, FanOutLag, "the lag")


def failed(limit: int = 100) -> Query[list[FailedNotification]]:
    """What cannot be delivered, the newest first."""
    return many(SQL["failed"], {"limit": limit}, FailedNotification)


def forget_old(keep_days: int, limit: int) -> Script[int]:
    """Forget what was delivered more than `keep_days` ago, with what became of it, up to `limit` rows of each table;
    returns how many rows. The keys of notifications stay: what was delivered once is not sent again."""
    old = {"days": keep_days, "limit": limit}
    forgotten = yield from count(SQL["forget_sendings"], old)
    ids = yield from column(SQL["old"], old, int)
    if not ids:
        return forgotten
    deleted = yield from count(SQL["forget_deliveries"], {"ids": ids, "limit": limit})
    forgotten += deleted
    if deleted < limit:
        forgotten += yield from count(SQL["forget"], {"ids": ids})
    return forgotten
