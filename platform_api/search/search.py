"""Searching the catalogue: by words, by meaning, or by both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

from platform_api.access.browsing_levels import browsing_level_parameter, read_browsing_levels
from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Reads
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.catalog.reading.search_pages import page_of
from platform_api.http.links import API, addresses
from platform_api.http.pagination import queried
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import (
    QueryParameters,
    boolean_schema,
    choice_schema,
    integer_schema,
    list_schema,
    text_schema,
)
from platform_api.http.rate_limits import LIMITED_AS, RateKind
from platform_api.search.search_views import Found, SearchInfo, found
from storage.records.accounts.accounts import Scope
from storage.records.catalog.vocabulary import ModelType
from storage.records.policy.viewers import EVERY_LEVEL, WITH_BLOCKED, Viewer
from storage.records.search.search import (
    FACETS,
    MAX_TEXT,
    SORTS,
    Facet,
    Filters,
    Kind,
    Rank,
    SearchMode,
    SearchQuery,
    Sort,
)

MAX_LIMIT, DEFAULT_LIMIT = 100, 20
_ORDERS = " ".join(f"{kind.capitalize()}: {', '.join(SORTS[kind])}." for kind in Kind)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SearchType(StrEnum):
    """What is searched for."""

    MODEL = "model"
    IMAGE = "image"
    CREATOR = "creator"

    @property
    def kind(self) -> Kind:
        """The kind of the index."""
        return Kind[self.name]


class FacetName(StrEnum):
    """Facets as clients name them."""

    TYPE = "type"
    BASE_MODEL = "baseModel"
    TAG = "tag"
    CREATOR = "creator"
    SHAPE = "shape"

    @property
    def facet(self) -> Facet:
        """The facet of the index."""
        return Facet[self.name]


class ShapeWord(StrEnum):
    """The shape of an image."""

    LANDSCAPE = "landscape"
    PORTRAIT = "portrait"
    SQUARE = "square"


_MOMENT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)

FindAnything = queried(
    {
        "q": (text_schema(MAX_TEXT), "Words, all of which must be there; the last may be a beginning. `query` too."),
        "mode": (
            choice_schema(SearchMode),
            "By words (text, the default), by meaning, or by both. Creators: by words.",
        ),
        "type": (choice_schema(SearchType), "What is searched for; model by default."),
        "types": (list_schema(choice_schema(ModelType)), "Any of these types of model; creators of any."),
        "baseModels": (
            list_schema(text_schema()),
            "Any of these base models, by their catalogue names; creators who have published for any.",
        ),
        "tags": (list_schema(text_schema()), "Any of these tags of the model; `tag` too. Not for creators."),
        "usernames": (list_schema(text_schema()), "Of any of these creators; `username` too. Not for creators."),
        "shapes": (list_schema(choice_schema(ShapeWord)), "Any of these shapes. For images."),
        "minWidth": (integer_schema(), "Pixels. For images."),
        "minHeight": (integer_schema(), "Pixels. For images."),
        "withMeta": (boolean_schema(), "true: how each image was made."),
        "nsfw": (boolean_schema(), "true: every level; otherwise what has something for everybody."),
        **browsing_level_parameter("Bits, one of which must be there"),
        "publishedFrom": (_MOMENT, "Published then or later; creators who have published since."),
        "publishedBefore": (_MOMENT, "Published earlier."),
        "facets": (
            list_schema(choice_schema(FacetName)),
            "Count the hits by these. Creators: type and baseModel; shape: images.",
        ),
        "sort": (choice_schema(Sort), f"relevance by default; other orders for mode=text. {_ORDERS}"),
        "limit": (integer_schema(0, MAX_LIMIT), "Items in one page."),
        "cursor": (text_schema(200), "metadata.nextCursor of the page before, with the same other parameters."),
    }
)


class SearchResource(Controller):
    """Searching the catalogue."""

    path = "/search"
    tags = ("Search",)

    @get(
        "/",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=FindAnything,
        opt={LIMITED_AS: RateKind.SEARCHES},
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="Search",
    )
    async def find(self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer) -> Response[Found]:
        """What matches, with exact totals and facets. While the engine or the encoder is unavailable: 503, never
        nothing.

        A filter that the type does not have is named in X-Ignored-Parameters.
        """
        query, where = QueryParameters(request), addresses(request, stores.settings.api)
        kind = (query.choice(SearchType, "type") or SearchType.MODEL).kind
        wanted, limit, cursor = _read(query, kind, viewer)
        with_meta = kind is Kind.IMAGE and bool(query.boolean("withMeta"))
        query.check()
        page = await page_of(stores, kind, wanted, limit, cursor)
        info = SearchInfo(
            total_items=page.window.total,
            facets={
                name: list(page.window.facets[name.facet]) for name in FacetName if name.facet in page.window.facets
            },
            degraded=list(page.window.degraded),
        )
        if page.next_cursor is not None:
            address = where.page(f"{API}/search", query.following(cursor=page.next_cursor))
            info = msgspec.structs.replace(info, next_cursor=page.next_cursor, next_page=address)
        levels = viewer.browsing(WITH_BLOCKED) if wanted.filters.levels is None else wanted.filters.levels
        shown = await found(stores, kind, page, levels, where, info, with_meta)
        return respond(request, shown, ignored=query.ignored)


def _read(query: QueryParameters, kind: Kind, viewer: Viewer) -> tuple[SearchQuery, int, str | None]:
    text, mode = query.text("q", "query") or "", query.choice(SearchMode, "mode") or SearchMode.TEXT
    levels = read_browsing_levels(query, viewer, EVERY_LEVEL if query.boolean("nsfw") else 0)
    filters = Filters(
        values=_read_values(query, kind),
        at_least=_read_sizes(query) if kind is Kind.IMAGE else {},
        levels=levels,
        published_from=_moment(query, "publishedFrom"),
        published_before=_moment(query, "publishedBefore"),
    )
    facets = tuple(name.facet for name in query.choices(FacetName, "facets") or ())
    sort = query.choice(Sort, "sort") or Sort.RELEVANCE
    limit, cursor = query.number("limit", low=0, high=MAX_LIMIT), query.text("cursor")
    query.check()
    wanted = SearchQuery(text=text, mode=mode, filters=filters, facets=facets, sort=sort)
    return wanted, DEFAULT_LIMIT if limit is None else limit, cursor


def _read_values(query: QueryParameters, kind: Kind) -> dict[Facet, tuple[str, ...]]:
    # Functions, so that only the filters of this kind are read: those of another then count as ignored, and are named.
    readers: dict[Facet, Callable[[], tuple[str, ...] | None]] = {
        Facet.TYPE: lambda: query.choices(ModelType, "types"),
        Facet.BASE_MODEL: lambda: query.texts("baseModels", "baseModel"),
        Facet.TAG: lambda: query.texts("tags", "tag"),
        Facet.CREATOR: lambda: query.texts("usernames", "username", "user"),
        Facet.SHAPE: lambda: query.choices(ShapeWord, "shapes", "shape"),
    }
    given = {facet: readers[facet]() for facet in FACETS[kind]}
    return {facet: tuple(values) for facet, values in given.items() if values}


def _read_sizes(query: QueryParameters) -> dict[Rank, int]:
    sizes = {Rank.WIDTH: query.number("minWidth"), Rank.HEIGHT: query.number("minHeight")}
    return {rank: size for rank, size in sizes.items() if size is not None}


def _moment(query: QueryParameters, name: str) -> int | None:
    """Microseconds since 1970 of a date, or of a date and time with or without an offset from UTC."""
    text = query.text(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        # In whole numbers: a float of seconds, times a million, would be off by one now and then.
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        query.fault(name, "expected a date such as 2026-11-24 or 2026-11-24T08:00:00Z")
        return None
