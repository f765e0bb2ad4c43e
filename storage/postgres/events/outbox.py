"""The outbox: committed facts that the relay turns into effects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import NotFound
from storage.postgres.connection import Query, Script, column, count, load_statements, many, one
from storage.records.events.events import CHANGES, Event, OutboxRow
from storage.records.jobs.jobs import JobKind

SQL = load_statements(__file__)


MAX_FAILURES = 10
"""An event whose effect failed so often is given up, some six minutes after the first try."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Events that wait for the relay: how many, and the age of the oldest in seconds; and those given up."""

    waiting: int
    oldest_seconds: float
    dead: int


class TroubledEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event without effect. Once it was given up, later ones of its subject go on without it."""

    id: int
    kind: str
    subject: str
    failures: int
    last_error: str | None
    created_at: datetime
    dead_at: datetime | None


def append(event: Event) -> Script[int]:
    """Commit an event with the caller's transaction; returns its id. A trigger wakes whoever listens on `outbox`."""
    payload = msgspec.to_builtins(event)
    kind = payload.pop("kind")
    parameters = {"kind": kind, "subject": event.subject, "payload": Jsonb(payload)}
    return (yield from Query(SQL["append"], parameters, lambda rows: int(rows[0]["id"])))


def claim(
    limit: int,
    held: Sequence[JobKind] = (),
    kinds: Sequence[str] | None = None,
    without: Sequence[str] = (),
    passed: Sequence[int] = (),
) -> Script[list[OutboxRow]]:
    """The oldest due events, in order; each gets its next try set before anything is done with it.

    Submitted jobs of the kinds in `held` wait, and so does an event while an earlier one of its subject waits.
    `kinds`: of these events only; `without`: none of these; `passed`: ids of events that are left alone.
    """
    wanted = None if kinds is None else list(kinds)
    # Statistics of a table that has just filled take a sort of all that waits for cheap, each with its own look for an
    # earlier one of its subject: 1.8 s for 100,000 events, where the index that has their order needs 13 ms.
    yield from Query("set local enable_sort = off", {}, len)
    which = {
        "held": list(held),
        "kinds": wanted,
        "without": list(without),
        "passed": list(passed),
        "merged": list(CHANGES),
    }
    rows = yield from many(SQL["claim"], {"limit": limit, **which}, OutboxRow)
    # An update returns its rows in any order.
    return sorted(rows, key=lambda row: row.id)


def done(*event_ids: int) -> Query[list[int]]:
    """These events have had their effect."""
    return column(SQL["done"], {"ids": list(event_ids)}, int)


def failed(event_id: int, error: str) -> Query[bool]:
    """The effect did not happen; it is tried again later. Returns whether it failed too often and was given up."""
    parameters = {"id": event_id, "error": error[:2000], "maximum": MAX_FAILURES}
    return Query(SQL["failed"], parameters, lambda rows: bool(rows and rows[0]["dead"]))


def give_up_deadly() -> Query[list[int]]:
    """Give up what relays died of; returns which."""
    return column(SQL["give_up_deadly"], {"maximum": MAX_FAILURES}, int)


def dead_events() -> Query[list[TroubledEvent]]:
    """Events that were given up, the oldest first."""
    return many(SQL["dead_events"], {}, TroubledEvent)


def in_trouble() -> Query[list[TroubledEvent]]:
    """Events that were given up, and those that wait and have failed or were refused, the oldest first."""
    return many(SQL["in_trouble"], {}, TroubledEvent)


def replay(event_id: int) -> Script[None]:
    """Try an event again that was given up, or waits. Raises NotFound when it had its effect or is not there."""
    yield from _of_those_that_wait("replay", event_id)


def discard(event_id: int) -> Script[None]:
    """Discard an event that was given up, or waits. Raises NotFound as `replay` does."""
    yield from _of_those_that_wait("discard", event_id)


def _of_those_that_wait(statement: str, event_id: int) -> Script[None]:
    if not (yield from count(SQL[statement], {"id": event_id})):
        raise NotFound(f"No event {event_id} waits or is given up. List those in trouble: darkroom events list")


def wait_no_longer(error: str, *event_ids: int) -> Query[list[int]]:
    """The other side was unavailable, so the events were not tried: they are due again at once and keep their
    places."""
    return column(SQL["wait_no_longer"], {"ids": list(event_ids), "error": error[:2000]}, int)


def of_subject(subject: str, after: int = 0) -> Query[list[OutboxRow]]:
    """A subject's events with ids above `after`, oldest first."""
    return many(SQL["of_subject"], {"subject": subject, "after": after}, OutboxRow)


def backlog() -> Query[Backlog]:
    """How far the relay is behind."""
    return one(SQL["backlog"], {}, Backlog, "the backlog")
