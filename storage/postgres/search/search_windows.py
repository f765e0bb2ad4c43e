"""Windows of searches: the ranked ids that a search pages through, kept for ten minutes."""

from __future__ import annotations

from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import CursorExpired, InvalidCursor
from storage.postgres.connection import Query, Script, column, load_statements, maybe
from storage.records.search.search import FacetCounts, SearchHits

SQL = load_statements(__file__)

KEEP_SECONDS = 600.0


class SearchWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found when its first page was read. `asked` names the search."""

    asked: str
    ids: tuple[int, ...]
    total: int
    facets: FacetCounts
    degraded: tuple[str, ...]


def window_of(asked: str, hits: SearchHits) -> SearchWindow:
    """A search's hits as a window."""
    ids = tuple(hit.id for hit in hits.hits)
    return SearchWindow(asked=asked, ids=ids, total=hits.total, facets=hits.facets, degraded=hits.degraded)


def keep(window: SearchWindow) -> Script[UUID]:
    """Keep a window for later pages; windows that are too old are forgotten."""
    # Also here and not by retention alone, which runs once an hour: windows are large and live ten minutes.
    yield from Query(SQL["forget_old"], {"seconds": KEEP_SECONDS}, len)
    parameters = msgspec.structs.asdict(window) | {
        "ids": list(window.ids),
        "facets": Jsonb(msgspec.to_builtins(window.facets)),
        "degraded": list(window.degraded),
    }
    [identity] = yield from column(SQL["keep"], parameters, UUID)
    return identity


def get(identity: UUID, asked: str) -> Script[SearchWindow]:
    """A window. Raises CursorExpired when it is too old, InvalidCursor when it is of another search."""
    window = yield from maybe(SQL["get"], {"id": identity, "seconds": KEEP_SECONDS}, SearchWindow)
    if window is None:
        raise CursorExpired("The cursor has expired: a search is kept for ten minutes. Begin again at the first page.")
    if window.asked != asked:
        raise InvalidCursor("The cursor belongs to another search. Send it with the same other parameters.")
    return window
