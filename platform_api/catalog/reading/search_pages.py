"""Pages of a search: one window of ranked ids for all of them, held for ten minutes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import msgspec

from platform_api.http.limits import read_cursor, write_cursor
from storage.errors import InvalidCursor, InvalidRequest
from storage.postgres.search import search_windows
from storage.postgres.search.search_windows import SearchWindow, window_of
from storage.records.search.search import WINDOW, Kind, SearchQuery
from storage.stores import AsyncStores


@dataclass(frozen=True)
class SearchPage:
    """The ids of a page in order, the metadata of the whole search, and the cursor of the next page, if any."""

    ids: tuple[int, ...]
    window: SearchWindow
    next_cursor: str | None


async def page_of(stores: AsyncStores, kind: Kind, query: SearchQuery, limit: int, cursor: str | None) -> SearchPage:
    """A page of a search. `query` is without a page of its own.

    Raises InvalidCursor, CursorExpired, StoreUnavailable.
    """
    # The whole window is searched at once and its ids kept, so that pages neither repeat nor leave out a hit when ranks
    # move.
    whole = msgspec.structs.replace(query, limit=WINDOW, offset=0)
    # Bound to the question: a cursor of one search with the filters of another is refused.
    asked = hashlib.sha256(msgspec.json.encode((kind, whole))).hexdigest()
    if cursor is not None:
        identity, offset = _read(cursor)
        window = await stores.database.run(search_windows.get(identity, asked))
    else:
        identity, offset = None, 0
        window = window_of(asked, await stores.search.find(kind, whole))
    end = offset + limit
    following = None
    if limit > 0 and end < len(window.ids):
        # Kept only when there is a second page to ask for.
        if identity is None:
            identity = await stores.database.run(lambda: search_windows.keep(window))
        following = write_cursor(identity, end)
    return SearchPage(window.ids[offset:end], window, following)


def _read(cursor: str) -> tuple[UUID, int]:
    refusal = InvalidCursor("The cursor is not one of ours. Send metadata.nextCursor of a page, unchanged.")
    try:
        identity, offset = read_cursor(cursor, 2)
        if not (offset.isdigit() and len(offset) <= 4):
            raise refusal
        return UUID(identity), int(offset)
    except (InvalidRequest, ValueError) as error:
        raise refusal from error
