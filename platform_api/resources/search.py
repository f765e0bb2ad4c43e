"""Searching the catalogue: by words, by meaning, or by both."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from msgspec import Meta

from platform_api.access import Reads
from platform_api.answers import addresses, answer
from platform_api.paging import queried
from platform_api.problems import can_answer
from platform_api.queries import Query, a_flag, a_list, a_number, a_text, a_word
from platform_api.rates import LIMITED_AS, RateKind
from platform_api.resources.catalog_views import ModelView
from platform_api.resources.models import EVERY_LEVEL, PG, UNCHANGED, WITH_BLOCKED
from platform_api.resources.views import API
from platform_api.searching import page_of, shown
from storage.records.access import Scope
from storage.records.search import MAX_TEXT, Facet, FacetCount, Filters, Kind, Mode, SearchQuery, Sort
from storage.records.visibility import Viewer
from storage.records.vocabulary import ModelType
from storage.stores import AsyncStores

MOST, USUAL = 100, 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SearchType(StrEnum):
    """What is searched for."""

    MODEL = "model"


class FacetName(StrEnum):
    """Facets as clients name them."""

    TYPE = "type"
    BASE_MODEL = "baseModel"
    TAG = "tag"
    CREATOR = "creator"

    @property
    def facet(self) -> Facet:
        """The facet of the index."""
        return Facet[self.name]


class SearchInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is said of the whole search; the next page is missing on the last one."""

    total_items: Annotated[
        int, Meta(description="Everything that matches, also beyond the 1,000 hits that are ranked.")
    ]
    facets: Annotated[
        dict[str, list[FacetCount]], Meta(description="The values of each facet asked for, without its own filter.")
    ]
    degraded: Annotated[list[str], Meta(description="What was left out because it is away: semantic.")]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET
    next_page: str | msgspec.UnsetType = msgspec.UNSET


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was found, best first."""

    items: list[ModelView]
    metadata: SearchInfo


_MOMENT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)

FindModels = queried(
    {
        "q": (a_text(MAX_TEXT), "Words, all of which must be there; the last may be a beginning. `query` too."),
        "mode": (a_word(Mode), "By words (text, the default), by meaning, or by both."),
        "type": (a_word(SearchType), "What is searched for."),
        "types": (a_list(a_word(ModelType)), "Any of these types of model."),
        "baseModels": (a_list(a_text()), "Any of these families."),
        "tags": (a_list(a_text()), "Any of these tags; `tag` too."),
        "usernames": (a_list(a_text()), "Models of any of these creators; `username` too."),
        "nsfw": (a_flag(), "true: models of every level; otherwise those with something for everybody."),
        "browsingLevel": (a_number(0, WITH_BLOCKED), "Bits, one of which a model must have; goes before nsfw."),
        "publishedFrom": (_MOMENT, "Published then or later."),
        "publishedBefore": (_MOMENT, "Published earlier."),
        "facets": (a_list(a_word(FacetName)), "Count the hits by these."),
        "sort": (a_word(Sort), "relevance unless said otherwise; other orders for mode=text."),
        "limit": (a_number(0, MOST), "Items in one page."),
        "cursor": (a_text(200), "metadata.nextCursor of the page before, with the same other parameters."),
    }
)


class SearchResource(Controller):
    """Searching the catalogue."""

    path = "/search"
    tags = ("Search",)

    @get(
        "/",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=FindModels,
        opt={LIMITED_AS: RateKind.SEARCHES},
        responses=can_answer(401, 403, 422) | UNCHANGED,
        summary="Search",
    )
    async def find(
        self, request: Request[Any, Any, Any], stores: AsyncStores, viewer: Viewer
    ) -> Response[SearchAnswer]:
        """What matches, with exact totals and facets. While the engine or the encoder is away: 503, never nothing."""
        query, where = Query(request), addresses(request, stores.settings.api)
        wanted, limit, cursor = _read(query, viewer)
        page = await page_of(stores, Kind.MODEL, wanted, limit, cursor)

        levels = wanted.filters.levels or WITH_BLOCKED
        items = await stores.database.run(shown(page, levels, where))
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
        return answer(request, SearchAnswer(items=items, metadata=info), ignored=query.ignored)


def _read(query: Query, viewer: Viewer) -> tuple[SearchQuery, int, str | None]:
    text, mode = query.text("q", "query") or "", query.choice(Mode, "mode") or Mode.TEXT
    query.choice(SearchType, "type")
    nsfw, level = query.flag("nsfw"), query.number("browsingLevel", low=0, high=WITH_BLOCKED)
    levels = level or (EVERY_LEVEL if nsfw else PG)
    values = {
        Facet.TYPE: query.choices(ModelType, "types"),
        Facet.BASE_MODEL: query.words("baseModels", "baseModel"),
        Facet.TAG: query.words("tags", "tag"),
        Facet.CREATOR: query.words("usernames", "username", "user"),
    }
    filters = Filters(
        values={facet: tuple(given) for facet, given in values.items() if given},
        levels=levels if viewer.moderator else levels & EVERY_LEVEL,
        published_from=_moment(query, "publishedFrom"),
        published_before=_moment(query, "publishedBefore"),
    )
    facets = tuple(name.facet for name in query.choices(FacetName, "facets") or ())
    sort = query.choice(Sort, "sort") or Sort.RELEVANCE
    limit, cursor = query.number("limit", low=0, high=MOST), query.text("cursor")
    query.check()
    wanted = SearchQuery(text=text, mode=mode, filters=filters, facets=facets, sort=sort)
    return wanted, USUAL if limit is None else limit, cursor


def _moment(query: Query, name: str) -> int | None:
    """Microseconds since 1970 of a date, or of a date and time with or without an offset from UTC."""
    text = query.text(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        query.fault(name, "expected a date such as 2026-11-24 or 2026-11-24T08:00:00Z")
        return None
