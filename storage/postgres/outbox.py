"""The outbox: committed facts that the relay turns into effects."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, Script, column, load_statements, many, one
from storage.records.events import Event, OutboxRow
from storage.records.jobs import JobKind

SQL = load_statements(__file__)


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Events that wait for the relay: how many, and the age of the oldest in seconds."""

    waiting: int
    oldest_seconds: float


def append(event: Event) -> Script[int]:
    """Commit an event with the caller's transaction; gives its id. A trigger wakes whoever listens on `outbox`."""
    payload = msgspec.to_builtins(event)
    kind = payload.pop("kind")
    parameters = {"kind": kind, "subject": event.subject, "payload": Jsonb(payload)}
    return (yield from Query(SQL["append"], parameters, lambda rows: int(rows[0]["id"])))


def claim(limit: int, held: Sequence[JobKind] = (), kinds: Sequence[str] | None = None) -> Script[list[OutboxRow]]:
    """The oldest due events, in order; each gets its next try set before anything is done with it.

    Submitted jobs of the kinds in `held` wait. `kinds`: of these events only.
    """
    wanted = None if kinds is None else list(kinds)
    rows = yield from many(SQL["claim"], {"limit": limit, "held": list(held), "kinds": wanted}, OutboxRow)
    return sorted(rows, key=lambda row: row.id)


def done(*event_ids: int) -> Query[list[int]]:
    """These events have had their effect."""
    return column(SQL["done"], {"ids": list(event_ids)}, int)


def failed(event_id: int, error: str) -> Query[list[int]]:
    """The effect did not happen; it is tried again later."""
    return column(SQL["failed"], {"id": event_id, "error": error[:2000]}, int)


def wait_no_longer(event_id: int, error: str) -> Query[list[int]]:
    """The other side was away, so the event was not tried: it is due again at once and keeps its place."""
    return column(SQL["wait_no_longer"], {"id": event_id, "error": error[:2000]}, int)


def of_subject(subject: str, after: int = 0) -> Query[list[OutboxRow]]:
    """A subject's events with ids above `after`, oldest first."""
    return many(SQL["of_subject"], {"subject": subject, "after": after}, OutboxRow)


def backlog() -> Query[Backlog]:
    """How far the relay is behind."""
    return one(SQL["backlog"], {}, Backlog, "the backlog")
