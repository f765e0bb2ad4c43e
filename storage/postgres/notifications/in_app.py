"""A reader's notifications in the app: the list, how many are unread, and what was read."""

from __future__ import annotations

from datetime import datetime

import msgspec

from storage.postgres.connection import Query, count, load_statements, many, one
from storage.postgres.policy.policy import with_clauses

SQL = with_clauses(load_statements(__file__), account_id="reader.id", moderator="(reader.role = 'moderator')")


class InApp(msgspec.Struct, frozen=True, kw_only=True):
    """One notification as its reader finds it. Later ones have higher ids."""

    id: int
    type: str
    title: str
    text: str
    path: str
    details: dict[str, object]
    created_at: datetime
    read_at: datetime | None


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """When a notification was read first."""

    id: int
    read_at: datetime


def page(reader: int, *, before: int | None, unread: bool, limit: int) -> Query[list[InApp]]:
    """A reader's notifications, the newest first, below the id `before`; of the unread ones alone if asked."""
    name = "unread_page" if unread else "page"
    return many(SQL[name], {"reader": reader, "before": before, "limit": limit}, InApp)


def after(reader: int, last: int, limit: int) -> Query[list[InApp]]:
    """What came after the id `last`, the oldest first."""
    return many(SQL["after"], {"reader": reader, "after": last, "limit": limit}, InApp)


def newest(reader: int) -> Query[int]:
    """The id of the newest one; 0 when there is none."""
    return Query(SQL["newest"], {"reader": reader}, lambda rows: int(rows[0]["id"]))


def unread(reader: int) -> Query[dict[str, int]]:
    """How many are unread, by type."""
    return Query(SQL["unread"], {"reader": reader}, lambda rows: {row["type"]: row["unread"] for row in rows})


def read(reader: int, identity: int) -> Query[Read]:
    """Note that one was read; the first time counts. Reading raises NotFound."""
    return one(SQL["read"], {"reader": reader, "id": identity}, Read, f"No notification {identity} of yours.")


def read_up_to(reader: int, identity: int) -> Query[int]:
    """Note that all were read up to one, itself too; returns how many were unread."""
    return count(SQL["read_up_to"], {"reader": reader, "id": identity})
