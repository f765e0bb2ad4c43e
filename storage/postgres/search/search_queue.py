"""Ids whose documents must be written again, coalesced, in three lanes, and what could not be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many, one
from storage.postgres.locks import lock_number
from storage.postgres.search.search_sources import LISTINGS
from storage.records.events.events import CHANGES, ImagesChanged, Lane
from storage.records.search.search import Kind

SQL = load_statements(__file__)

LANES = {Lane.VISIBILITY: 1, Lane.EDITS: 2, Lane.COUNTS: 3}
COUNTS_DELAY_SECONDS = 60.0
"""Counts change often and all at once: one that changes again within this time is written once."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the queue. `changes` shows whether it was changed again since `read_at`."""

    kind: Kind
    id: int
    lane: int
    changes: int
    read_at: datetime


class SearchLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far searches are behind the rows: ids that wait, and the age in seconds of the oldest change."""

    waiting: int
    oldest_seconds: float
    oldest_counts_seconds: float
    dead_letters: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A document that the engine refused, and why."""

    kind: Kind
    id: int
    revision: int
    error: str
    failed_at: datetime


def add(kind: Kind, ids: Iterable[int], lane: Lane) -> Query[list[int]]:
    """These rows changed. A trigger wakes whoever listens on `search_queue`."""
    delay = COUNTS_DELAY_SECONDS if lane is Lane.COUNTS else 0.0
    parameters = {"kind": kind, "ids": sorted(set(ids)), "lane": LANES[lane], "delay": delay}
    return column(SQL["add"], parameters, int)


def add_images(changed: ImagesChanged) -> Script[list[int]]:
    """The images that an event is about changed."""
    parameters = {
        "ids": list(changed.image_ids),
        "model_ids": list(changed.model_ids),
        "account_numbers": list(changed.account_numbers),
    }
    ids = yield from column(SQL["changed_images"], parameters, int)
    return (yield from add(Kind.IMAGE, ids, changed.lane))


def add_every(kind: Kind) -> Query[int]:
    """Every listed row of a kind waits to be written; returns how many did not wait before."""
    return Query(SQL["add_every"].replace("{listings}", LISTINGS[kind]), {"kind": kind}, len)


def due(limit: int) -> Query[list[Waiting]]:
    """What is due, the most urgent first."""
    return many(SQL["due"], {"limit": limit}, Waiting)


def done(rows: Sequence[Waiting]) -> Script[None]:
    """These rows were written as they are now; those changed again since they were read stay, as changed after that."""
    parameters = {
        "kinds": [row.kind for row in rows],
        "ids": [row.id for row in rows],
        "changes": [row.changes for row in rows],
    }
    yield from column(SQL["hold_done"], parameters, int)
    written = yield from column(SQL["done"], parameters, int)
    if len(written) < len(rows):
        again = {"read_at": [row.read_at for row in rows], "delay": COUNTS_DELAY_SECONDS}
        yield from column(SQL["done_but_changed"], {**parameters, **again}, int)


def bury(kind: Kind, identity: int, revision: int, error: str) -> Query[list[int]]:
    """A document was refused; it stays on the list until it is written."""
    parameters = {"kind": kind, "id": identity, "revision": revision, "error": error[:2000]}
    return column(SQL["bury"], parameters, int)


def revive(kind: Kind, ids: Sequence[int]) -> Query[list[int]]:
    """These were written, so they are on no list of refused ones."""
    return column(SQL["revive"], {"kind": kind, "ids": list(ids)}, int)


def dead_letters(limit: int = 100) -> Query[list[DeadLetter]]:
    """What was refused, the oldest first."""
    return many(SQL["dead_letters"], {"limit": limit}, DeadLetter)


def lag() -> Query[SearchLag]:
    """How far searches are behind."""
    return one(SQL["lag"], {"changes": list(CHANGES)}, SearchLag, "the lag")


def waiting_since(moment: datetime) -> Query[bool]:
    """Whether a change that came to the queue before `moment` still waits to be written. Counts do not matter here."""
    return Query(SQL["waiting_since"], {"moment": moment}, lambda rows: bool(rows[0]["waiting"]))


def on_their_way_since(moment: datetime) -> Query[bool]:
    """Whether a change from before `moment` has not come to the queue. Counts do not matter here."""
    parameters = {"moment": moment, "changes": list(CHANGES)}
    return Query(SQL["on_their_way_since"], parameters, lambda rows: bool(rows[0]["waiting"]))


def waiting_ids(kind: Kind) -> Query[list[int]]:
    """The ids of a kind that wait to be written, due or not."""
    return column(SQL["waiting_ids"], {"kind": kind}, int)


def events_waiting() -> Query[bool]:
    """Whether changes are still on their way to the queue."""
    return Query(SQL["events_waiting"], {"changes": list(CHANGES)}, lambda rows: bool(rows[0]["waiting"]))


def now() -> Query[datetime]:
    """Postgres' clock."""
    return Query(SQL["now"], {}, lambda rows: rows[0]["moment"])


def next_due() -> Query[float | None]:
    """In how many seconds the next row is due; None for an empty queue."""
    return Query(SQL["next_due"], {}, lambda rows: rows[0]["seconds"])


def drain_wanted(flow: str) -> Script[int | None]:
    """The number of the run that should drain the queue now; None when none is due or one holds the lock `flow`."""
    numbers = yield from column(SQL["drain_wanted"], {"flow": flow, "lock": lock_number(flow)}, int)
    return numbers[0] if numbers else None
