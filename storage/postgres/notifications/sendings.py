"""Sendings: one e-mail, webhook call, push or chat message. Claimed by one worker, ended once, sent again if asked."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.postgres.policy.policy import with_clauses
from storage.records.notifications.channels import Channel

SQL = with_clauses(load_statements(__file__), account_id="reader.id", moderator="(reader.role = 'moderator')")
_KNOWN = {"channels": list(Channel)}
"""A release that does not know a channel leaves its sendings alone: a later one may run beside it."""


class Purpose(StrEnum):
    """Why a sending is made: to notify, to have an address confirmed, to try an address out."""

    NOTIFY = "notify"
    CONFIRM = "confirm"
    TEST = "test"


class SendingState(StrEnum):
    """Where a sending is. All but `due` are ends."""

    DUE = "due"
    SENT = "sent"
    SUPPRESSED = "suppressed"
    DEAD = "dead"


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `attempts` counts its tries since it was last made due, `claims` all its claims: the newest one may end
    it. `endpoint_id` is the address that is confirmed or tested."""

    id: UUID
    purpose: Purpose
    reader: int
    channel: Channel
    endpoint_id: UUID | None
    state: SendingState
    attempts: int
    claims: int
    next_attempt_at: datetime
    last_error: str | None
    created_at: datetime
    ended_at: datetime | None


class SentItem(msgspec.Struct, frozen=True, kw_only=True):
    """One notification that a sending carries."""

    id: int
    type: str
    title: str
    text: str
    path: str
    details: dict[str, object]
    created_at: datetime


def add(purpose: Purpose, reader: int, channel: Channel, endpoint_id: UUID) -> Query[Sending]:
    """A sending that carries no delivery: it confirms or tests an address."""
    parameters = {"id": uuid4(), "purpose": purpose, "reader": reader, "channel": channel, "endpoint_id": endpoint_id}
    return one(SQL["add"], parameters, Sending, "the sending")


def recent(reader: int) -> Query[int]:
    """How many confirmations and tests a reader has asked for in the last minute."""
    return Query(SQL["recent"], {"reader": reader}, lambda rows: int(rows[0]["recent"]))


def claim(claim_seconds: float) -> Query[Sending | None]:
    """The longest due sending, for this worker alone until `claim_seconds` have passed; None when none is due."""
    return maybe(SQL["claim"], {"claim_seconds": claim_seconds, **_KNOWN}, Sending)


def items(sending_id: UUID) -> Query[list[SentItem]]:
    """What a sending carries and its reader may still be delivered, the oldest first."""
    return many(SQL["items"], {"id": sending_id}, SentItem)


def end(sending: Sending, state: SendingState, error: str | None = None) -> Script[bool]:
    """End a claimed sending and its deliveries; returns whether this claim was still the newest."""
    parameters = {"id": sending.id, "claims": sending.claims, "state": state, "error": error and error[:500]}
    ended = yield from maybe(SQL["end"], parameters, Sending)
    if ended is None:
        return False
    yield from column(SQL["end_deliveries"], parameters, int)
    return True


def again(sending: Sending, pause_seconds: float, error: str) -> Query[Sending | None]:
    """Try a claimed sending again after a pause; None when this claim is not the newest any more."""
    # By the claim's own number: `attempts` begins at 0 again when a sending is sent again, and a slow worker's old
    # claim could have the same one.
    parameters = {"id": sending.id, "claims": sending.claims, "pause": pause_seconds, "error": error[:500]}
    return maybe(SQL["again"], parameters, Sending)


def dead(*, reader: int | None = None, before: datetime | None = None, limit: int = 100) -> Query[list[Sending]]:
    """Sendings that were given up, the newest first; of one reader if asked."""
    return many(SQL["dead"], {"reader": reader, "before": before, "limit": limit, **_KNOWN}, Sending)


def replay(sending_id: UUID, reader: int | None = None) -> Script[Sending]:
    """Make a sending that was given up due again, with the same id and all its tries. Raises NotFound."""
    missing = f"No sending {sending_id} of yours was given up."
    found = yield from one(SQL["replay"], {"id": sending_id, "reader": reader, **_KNOWN}, Sending, missing)
    yield from column(SQL["replay_deliveries"], {"id": sending_id}, int)
    yield from column(SQL["wake"], {}, str)
    return found


def pause(channel: Channel) -> Query[list[str]]:
    """Send nothing on a channel until it is resumed; what falls due waits."""
    return column(SQL["pause"], {"channel": channel}, str)


def resume(channel: Channel) -> Script[bool]:
    """Send on a channel again; returns whether it was paused."""
    resumed = yield from column(SQL["resume"], {"channel": channel}, str)
    yield from column(SQL["wake"], {}, str)
    return bool(resumed)


def paused() -> Query[list[Channel]]:
    """The channels that are paused."""
    return Query(SQL["paused"], _KNOWN, lambda rows: [Channel(row["channel"]) for row in rows])
