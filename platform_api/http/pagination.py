"""Pages of the catalogue: how many, from where, and where the next one begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from litestar.openapi.spec import Operation, Schema

from platform_api.http import cursors
from platform_api.http.links import Addresses
from platform_api.http.problems import TooManyPages
from platform_api.http.query_parameters import QueryParameters, described, integer_schema, text_schema
from storage.records.catalog.listing import Cursor
from storage.settings import ApiSettings

DEEPEST = 1000
"""How far numbered pages reach; cursors reach everything."""
MAX_NUMBERED, DEFAULT_NUMBERED = 200, 20
"""Items in one page of a list that has numbers only."""


class PageInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the next page begins; nothing of it on the last page. The numbers are there when a number was asked for."""

    next_cursor: str | msgspec.UnsetType = msgspec.UNSET
    next_page: str | msgspec.UnsetType = msgspec.UNSET
    current_page: int | msgspec.UnsetType = msgspec.UNSET
    page_size: int | msgspec.UnsetType = msgspec.UNSET


class Numbers(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Numbered pages with their totals."""

    total_items: int
    current_page: int
    page_size: int
    total_pages: int
    next_page: str | msgspec.UnsetType = msgspec.UNSET
    prev_page: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class PageRequest:
    """Which page is asked for."""

    limit: int
    page: int | None
    cursor: Cursor | None

    @property
    def offset(self) -> int:
        """How many items lie before it."""
        return 0 if self.cursor or self.page is None else (self.page - 1) * self.limit

    def info(self, following: Cursor | None, path: str, query: QueryParameters, where: Addresses) -> PageInfo:
        """The metadata of the page, before one that begins at `following`."""
        numbered = self.cursor is None and self.page is not None
        size = {"current_page": self.page, "page_size": self.limit} if numbered else {}
        if following is None:
            return PageInfo(**size)  # type: ignore[arg-type]
        text = cursors.write(following, where.settings)
        address = where.page(path, query.following(cursor=text, page=None))
        return PageInfo(next_cursor=text, next_page=address, **size)  # type: ignore[arg-type]


def read_page_request(query: QueryParameters, settings: ApiSettings, *, maximum: int, default: int) -> PageRequest:
    """The page that a query asks for. Raises InvalidCursor, TooManyPages."""
    limit = query.number("limit", low=0, high=maximum)
    page, text = query.number("page"), query.text("cursor")
    requested = PageRequest(default if limit is None else limit, page, cursors.read(text, settings) if text else None)
    # Rows before an offset are read and thrown away, so the cost of a page grows with its number; cursors go on behind
    # a row.
    if requested.cursor is None and page is not None and page * requested.limit > DEEPEST:
        raise TooManyPages(f"Numbered pages end at item {DEEPEST:,}. Go on with metadata.nextCursor.")
    return requested


def numbers(total: int, page: int, limit: int, path: str, query: QueryParameters, where: Addresses) -> Numbers:
    """The metadata of a numbered page."""
    pages = max(1, -(-total // limit))

    def at(number: int) -> str | msgspec.UnsetType:
        if not 1 <= number <= pages:
            return msgspec.UNSET
        return where.page(path, query.following(page=number))

    return Numbers(
        total_items=total,
        current_page=page,
        page_size=limit,
        total_pages=pages,
        next_page=at(page + 1),
        prev_page=at(page - 1) if page <= pages else msgspec.UNSET,
    )


def queried(parameters: Mapping[str, tuple[Schema, str]]) -> type[Operation]:
    """An operation of the OpenAPI document that takes these in its query; the handler reads them leniently."""

    @dataclass  # Litestar's base calls __post_init__ only for dataclasses
    class Queried(Operation):
        """An operation with a query."""

        def __post_init__(self) -> None:
            """Describe the query."""
            self.parameters = [*(self.parameters or []), *described(parameters)]

    return Queried


def page_parameters(maximum: int) -> dict[str, tuple[Schema, str]]:
    """The parameters of a list with cursors."""
    return {
        "limit": (integer_schema(0, maximum), "Items in one page."),
        "page": (integer_schema(), f"A page by its number, up to item {DEEPEST:,}; cursors go on from there."),
        "cursor": (
            text_schema(cursors.MAX_LENGTH),
            "metadata.nextCursor of the page before, with the same other parameters.",
        ),
    }


def numbering(of: str) -> dict[str, tuple[Schema, str]]:
    """The parameters of a list that has numbers only, searched by the beginning of `of`."""
    return {
        "limit": (integer_schema(0, MAX_NUMBERED), f"Items in one page; 0: {MAX_NUMBERED}."),
        "page": (integer_schema(), "A page by its number."),
        "query": (text_schema(), f"The beginning of {of}."),
    }


def read_numbers(query: QueryParameters) -> tuple[int, int, str | None]:
    """The limit, number and text of a numbered list. Raises InvalidRequest, TooManyPages."""
    limit, page = query.number("limit", low=0, high=MAX_NUMBERED), query.number("page") or 1
    text = query.text("query")
    query.check()
    # A limit of 0 means all that a page can have, as at Civitai.
    limit = DEFAULT_NUMBERED if limit is None else limit or MAX_NUMBERED
    if page > 1 and page * limit > DEEPEST * 10:
        raise TooManyPages(f"Numbered pages end at item {DEEPEST * 10:,}. Narrow the list down with query.")
    return limit, page, text
