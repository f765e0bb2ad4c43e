"""Tags, and the enumerations that clients should not hard-code."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Controller, Request, Response, get

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Reads
from platform_api.cache.response_cache import CACHE_SECONDS, PEOPLE_SECONDS
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.http.links import API, addresses
from platform_api.http.pagination import Numbers, numbering, numbers, queried, read_numbers
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters
from storage.postgres.catalog import tags
from storage.postgres.catalog.tags import Tag
from storage.postgres.connection import Script
from storage.postgres.events.watch import Dependencies, Every
from storage.records.accounts.accounts import Scope
from storage.records.catalog.vocabulary import BASE_MODELS, BaseModelType, FileType, ModelType


class TagItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A tag of public models."""

    id: int
    name: str
    model_count: int
    link: str


class TagPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tags."""

    items: list[TagItem]
    metadata: Numbers


class Enums(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Tags that filters take. More may come; treat an unknown one as text."""

    model_type: list[str]
    model_file_type: list[str]
    active_base_model: list[str]
    base_model: list[str]
    base_model_type: list[str]


class Tags(Controller):
    """Tags to filter by."""

    tags = ("Models",)

    @get(
        "/tags",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=queried(numbering("a tag")),
        opt={CACHE_SECONDS: PEOPLE_SECONDS},
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="Tags",
    )
    async def tag_page(self, request: Request[Any, Any, Any], stores: AppStores) -> Response[TagPage]:
        """Tags of public models, the most used first."""
        query, where = QueryParameters(request), addresses(request, stores.settings.api)
        limit, page, text = read_numbers(query)

        def script() -> Script[tuple[list[Tag], int]]:
            found = yield from tags.page(text, offset=(page - 1) * limit, limit=limit)
            return found, (yield from tags.total(text))[0]

        found, total = await stores.database.run(script)
        items = [
            TagItem(
                id=tag.id,
                name=tag.name,
                model_count=tag.models,
                link=where.page(f"{API}/models", f"tag={quote(tag.name, safe='')}"),
            )
            for tag in found
        ]
        metadata = numbers(total, page, limit, f"{API}/tags", query, where)
        page_of_tags, dependencies = TagPage(items=items, metadata=metadata), Dependencies(all_of=Every.EDITS)
        return respond(request, page_of_tags, ignored=query.ignored, dependencies=dependencies)

    @get(
        "/enums",
        guards=[Reads(Scope.MODELS_READ)],
        responses=can_return(401, 403) | UNCHANGED,
        summary="Enumerations",
    )
    async def enums(self, request: Request[Any, Any, Any]) -> Response[Enums]:
        """Types of models and files, and catalogue names of base models."""
        bases = list(BASE_MODELS)
        enums = Enums(
            model_type=[kind.value for kind in ModelType],
            model_file_type=[kind.value for kind in FileType],
            active_base_model=bases,
            base_model=bases,
            base_model_type=[kind.value for kind in BaseModelType],
        )
        return respond(request, enums)
