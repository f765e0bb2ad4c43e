"""Which models of the catalogue changed since a snapshot of the database was taken."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.postgres.connection import Query, load_statements, one
from storage.records.events.events import Lane

SQL = load_statements(__file__)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One committed change: of some models, and what of them."""

    model_ids: tuple[int, ...]
    lane: Lane


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed since a snapshot, and the snapshot up to which this says it."""

    snapshot: str
    events: tuple[Change, ...]


def since(snapshot: str | None, maximum: int) -> Query[Changes]:
    """At most `maximum` changes since a snapshot; none for None, which begins the watch."""
    parameters: dict[str, Any] = {"since": snapshot, "maximum": maximum}
    return one(SQL["since"], parameters, Changes, "the snapshot")
