"""The catalogue's models: lists and single ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get
from litestar.params import FromPath

from platform_api.access.browsing_levels import browsing_level_parameter, read_browsing_levels
from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Reads
from platform_api.cache.response_cache import CACHE_SECONDS, LIST_SECONDS, MODEL_SECONDS
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.catalog.reading.catalog_parts import read_parts
from platform_api.catalog.reading.catalog_views import ModelView, model_view
from platform_api.catalog.reading.listed_models import Shown, shown_models
from platform_api.catalog.reading.search_pages import page_of
from platform_api.http.links import API, Addresses, addresses
from platform_api.http.pagination import PageInfo, page_parameters, queried, read_page_request
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import (
    QueryParameters,
    boolean_schema,
    choice_schema,
    integer_schema,
    list_schema,
    text_schema,
)
from platform_api.http.rate_limits import SEARCHES_WITH
from storage.errors import Unauthenticated
from storage.postgres.catalog import catalog, listing
from storage.postgres.connection import Script
from storage.postgres.events.watch import Dependencies, Every
from storage.records.accounts.accounts import Scope
from storage.records.catalog.listing import ModelFilter, ModelSort, Period
from storage.records.catalog.vocabulary import CheckpointType, CommercialUse, ModelType, UploadType
from storage.records.policy.checks import check_model
from storage.records.policy.viewers import EVERY_LEVEL, Viewer
from storage.records.search.search import MAX_TEXT, Facet, Filters, Kind, SearchQuery, Sort
from storage.stores import AsyncStores

MAX_LIMIT = 100


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of models."""

    items: list[ModelView]
    metadata: PageInfo


ListModels = queried(
    {
        **page_parameters(MAX_LIMIT),
        "query": (text_schema(MAX_TEXT), "Words, as in /search, best first unless sort says otherwise; without page."),
        "tag": (text_schema(), "The exact name of a tag; `tagname` too."),
        "username": (text_schema(), "Whose models; `user` too."),
        "types": (list_schema(choice_schema(ModelType)), "Repeated or joined by commas; `type` too."),
        "baseModels": (
            list_schema(text_schema()),
            "Catalogue names of base models, for example SD 1.5; `baseModel` too.",
        ),
        "checkpointType": (choice_schema(CheckpointType), "Trained or merged checkpoints."),
        "sort": (choice_schema(ModelSort), "Highest Rated by default."),
        "period": (choice_schema(Period), "Only models with a version that is not older."),
        "nsfw": (boolean_schema(), "true: models of every level; otherwise those with something for everybody."),
        **browsing_level_parameter("Bits, one of which a model must have"),
        "favorites": (boolean_schema(), "Needs a key."),
        "hidden": (boolean_schema(), "Needs a key."),
        "primaryFileOnly": (boolean_schema(), "Only the primary file of each version."),
        "allowCommercialUse": (list_schema(choice_schema(CommercialUse)), "Any of these uses."),
        "allowNoCredit": (boolean_schema(), "What the model's permissions say."),
        "allowDerivatives": (boolean_schema(), "What the model's permissions say."),
        "allowDifferentLicense": (boolean_schema(), "What the model's permissions say."),
        "ids": (list_schema(integer_schema()), "Only these models."),
        "modelVersionIds": (list_schema(integer_schema()), "Only models with one of these versions."),
        "fileFormats": (list_schema(text_schema()), "Only models with a file of one of these formats."),
        "supportsGeneration": (boolean_schema(), "true: only models that images can be drawn from here."),
        "fromPlatform": (boolean_schema(), "Trained here, or uploaded."),
        "archived": (boolean_schema(), "true: archived models too."),
    }
)


class Models(Controller):
    """What is published."""

    path = "/models"
    tags = ("Models",)

    @get(
        "/",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=ListModels,
        opt={SEARCHES_WITH: "query", CACHE_SECONDS: LIST_SECONDS},
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="List",
    )
    async def list_page(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer
    ) -> Response[ModelPage]:
        """Public models with their versions. Pages by cursor keep the order of the first page, whatever changes.

        With `query` they are searched, and filters that search does not have are named in X-Ignored-Parameters.
        """
        query, where = QueryParameters(request), addresses(request, stores.settings.api)
        if (words := query.text("query")) is not None:
            found = await _search(stores, words, query, viewer, where)
            return respond(request, found, ignored=query.ignored)
        requested = read_page_request(query, stores.settings.api, maximum=MAX_LIMIT, default=MAX_LIMIT)
        wanted, sort, primary_only = _read_filter(query, viewer)
        query.check()
        page = await stores.database.run(
            listing.models(wanted, sort, limit=requested.limit, cursor=requested.cursor, offset=requested.offset)
        )
        items = await shown_models(stores, page.ids, Shown(wanted.levels, where, primary_only))
        found = ModelPage(items=items, metadata=requested.info(page.next, f"{API}/models", query, where))
        # A list can change with any model, also with its counts, by which it may be sorted.
        return respond(request, found, ignored=query.ignored, dependencies=Dependencies(all_of=Every.ALL))

    @get(
        "/{model_id:int}",
        guards=[Reads(Scope.MODELS_READ)],
        opt={CACHE_SECONDS: MODEL_SECONDS},
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="One model",
    )
    async def show(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, model_id: FromPath[int]
    ) -> Response[ModelView]:
        """A model with its versions, files, hashes and images, at every browsing level.

        Its owner also sees drafts and private versions. One that was deleted or taken down returns 410 with the reason.
        """
        where = addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            model = yield from catalog.model_by_id(model_id)
            check_model(model, viewer)
            return model_view(model, (yield from read_parts([model], viewer)), where)

        return respond(request, await stores.database.run(script), dependencies=Dependencies(frozenset({model_id})))


def _read_filter(query: QueryParameters, viewer: Viewer) -> tuple[ModelFilter, ModelSort, bool]:
    favourites, hidden = query.boolean("favorites", "favourites"), query.boolean("hidden")
    # Whatever their value: Civitai returns 401 as soon as one of them is there.
    if viewer.account_id is None and not (favourites is None and hidden is None):
        raise Unauthenticated("favorites and hidden are somebody's own. Send: Authorization: Bearer drk_...")
    levels = read_browsing_levels(query, viewer, EVERY_LEVEL if query.boolean("nsfw") else 0)
    # At Civitai a period filters models unless this says that only the counts are meant.
    stats_only = query.text("periodMode") == "stats"
    period = query.choice(Period, "period") or Period.ALL_TIME
    drawable, ours = query.boolean("supportsGeneration"), query.boolean("fromPlatform")
    wanted = ModelFilter(
        levels=levels,
        types=query.choices(ModelType, "types", "type"),
        base_models=query.texts("baseModels", "baseModel"),
        checkpoint_type=query.choice(CheckpointType, "checkpointType"),
        tag=query.text("tag", "tagname"),
        username=query.text("username", "user"),
        ids=query.numbers("ids"),
        version_ids=query.numbers("modelVersionIds"),
        formats=query.texts("fileFormats", "fileFormat"),
        commercial_use=query.choices(CommercialUse, "allowCommercialUse"),
        allow_no_credit=query.boolean("allowNoCredit"),
        allow_derivatives=query.boolean("allowDerivatives"),
        allow_different_license=query.boolean("allowDifferentLicense"),
        upload_type=None if ours is None else UploadType.TRAINED if ours else UploadType.CREATED,
        drawable=bool(drawable),
        archived=bool(query.boolean("archived")),
        nothing=bool(favourites or hidden),  # nobody has any yet
        period=Period.ALL_TIME if stats_only else period,
    )
    sort = query.choice(ModelSort, "sort") or ModelSort.HIGHEST_RATED
    return wanted, sort, bool(query.boolean("primaryFileOnly"))


async def _search(
    stores: AsyncStores, words: str, query: QueryParameters, viewer: Viewer, where: Addresses
) -> ModelPage:
    """A page of a search by words. The limit of its cursors is that of a search: a thousand hits, for ten minutes."""
    if query.number("page") is not None:
        query.fault("page", "a search goes on with metadata.nextCursor; leave page out")
    levels = read_browsing_levels(query, viewer, EVERY_LEVEL if query.boolean("nsfw") else 0)
    sort, period = query.choice(ModelSort, "sort"), query.choice(Period, "period") or Period.ALL_TIME
    values = {
        Facet.TYPE: query.choices(ModelType, "types", "type"),
        Facet.BASE_MODEL: query.texts("baseModels", "baseModel"),
        Facet.TAG: query.texts("tag", "tagname"),
        Facet.CREATOR: query.texts("username", "user"),
    }
    limit, cursor = query.number("limit", low=0, high=MAX_LIMIT), query.text("cursor")
    primary_only = bool(query.boolean("primaryFileOnly"))
    query.check()
    # To the day, so that the pages of one search are one search.
    since = period.since(datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    wanted = SearchQuery(
        text=words,
        filters=Filters(
            values={facet: tuple(given) for facet, given in values.items() if given},
            levels=levels,
            published_from=None if since is None else int(since.timestamp()) * 1_000_000,
        ),
        sort=Sort.RELEVANCE if sort is None else _SORTS[sort],
    )
    page = await page_of(stores, Kind.MODEL, wanted, MAX_LIMIT if limit is None else limit, cursor)
    items = await shown_models(stores, page.ids, Shown(levels, where, primary_only))
    if page.next_cursor is None:
        return ModelPage(items=items, metadata=PageInfo())
    address = where.page(f"{API}/models", query.following(cursor=page.next_cursor))
    return ModelPage(items=items, metadata=PageInfo(next_cursor=page.next_cursor, next_page=address))


_SORTS = {
    ModelSort.HIGHEST_RATED: Sort.RATED,
    ModelSort.MOST_LIKED: Sort.RATED,
    ModelSort.MOST_DOWNLOADED: Sort.DOWNLOADED,
    ModelSort.MOST_DISCUSSED: Sort.DISCUSSED,
    ModelSort.MOST_COLLECTED: Sort.COLLECTED,
    ModelSort.MOST_IMAGES: Sort.PICTURED,
    ModelSort.NEWEST: Sort.NEWEST,
    ModelSort.OLDEST: Sort.OLDEST,
}
