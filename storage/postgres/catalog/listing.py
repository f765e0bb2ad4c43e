"""Pages of the catalogue's lists, in the order that their first page saw."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import CursorExpired
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query, Rows, Script, column, load_statements
from storage.records.catalog.listing import (
    TOP,
    Cursor,
    ImageFilter,
    ImageSort,
    ListPlace,
    ModelFilter,
    ModelSort,
    check_cursor,
    fingerprint,
)

SQL = load_statements(__file__)


class PageOfIds(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of a page in order, and where the next page begins; None after the last."""

    ids: list[int]
    next: Cursor | None


def models(
    wanted: ModelFilter, sort: ModelSort, *, limit: int, cursor: Cursor | None = None, offset: int = 0
) -> Script[PageOfIds]:
    """A page of models. Raises InvalidCursor, CursorExpired."""
    began = cursor.began() if cursor else datetime.now(UTC)
    parameters = _columns(wanted) | {"since": wanted.period.since(began), "tag_id": None}
    if wanted.tag is not None:
        found = yield from column(SQL["tag"], {"name": wanted.tag.strip().lower()}, int)
        # No tag has the id 0: a tag that nobody has set finds nothing, not everything.
        parameters["tag_id"] = found[0] if found else 0
    parameters["account_ids"] = yield from _accounts(wanted.username, None)
    return (yield from _page("models", sort.list_name, wanted, parameters, limit, cursor, offset))


def images(
    wanted: ImageFilter, sort: ImageSort, *, limit: int, cursor: Cursor | None = None, offset: int = 0
) -> Script[PageOfIds]:
    """A page of images. Raises InvalidCursor, CursorExpired."""
    began = cursor.began() if cursor else datetime.now(UTC)
    parameters = _columns(wanted) | {"since": wanted.period.since(began)}
    parameters["account_ids"] = yield from _accounts(wanted.username, wanted.user_number)
    return (yield from _page("images", sort.list_name, wanted, parameters, limit, cursor, offset))


def _columns(wanted: ModelFilter | ImageFilter) -> dict[str, Any]:
    """A filter as parameters: Postgres takes lists for arrays, not tuples."""
    fields = msgspec.structs.asdict(wanted)
    return {name: [*value] if isinstance(value, tuple) else value for name, value in fields.items()}


def _accounts(username: str | None, number: int | None) -> Script[list[UUID] | None]:
    if username is None and number is None:
        return None
    return [account.id for account in (yield from accounts.users(name=username, number=number))]


def _page(
    statement: str,
    list_name: str,
    wanted: ModelFilter | ImageFilter,
    parameters: Mapping[str, Any],
    limit: int,
    cursor: Cursor | None,
    offset: int,
) -> Script[PageOfIds]:
    if wanted.nothing or limit == 0:
        return PageOfIds(ids=[], next=None)
    asked, now = fingerprint(list_name, wanted), datetime.now(UTC)
    epoch, next_transaction = yield from Query(SQL["epoch"], {}, lambda rows: tuple(rows[0].values()))
    if cursor is not None:
        check_cursor(cursor, asked, epoch, now)
        if int(cursor.snapshot.split(":")[1]) > next_transaction:  # the database was set back to an older backup
            raise CursorExpired("The cursor is from a time that is no more. Begin again at the first page.")
    place = cursor.place if cursor else TOP
    whole = dict(parameters) | msgspec.structs.asdict(place) | {"list": list_name, "limit": limit + 1, "offset": offset}
    whole["snapshot"] = cursor.snapshot if cursor else None
    rows = yield from Query(SQL[statement], whole, _rows)
    following = None
    if len(rows) > limit:
        # One row more than the page was read: the next page begins at it.
        extra = rows[limit]
        following = Cursor(
            asked,
            epoch,
            extra["snapshot"],
            cursor.started_at if cursor else int(now.timestamp()),
            ListPlace(extra["k1"], extra["k2"], extra["item_id"]),
        )
    return PageOfIds(ids=[row["item_id"] for row in rows[:limit]], next=following)


def _rows(rows: Rows) -> Rows:
    return rows
