"""What a search found, as clients read it: one shape for each type, distinguished by `type`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from platform_api.accounts.people import CreatorItem, creator_item
from platform_api.catalog.reading.catalog_views import ModelView
from platform_api.catalog.reading.images import ListedImage, listed_image
from platform_api.catalog.reading.listed_models import Shown, shown_models
from platform_api.catalog.reading.search_pages import SearchPage
from platform_api.http.links import Addresses
from storage.postgres.accounts import accounts
from storage.postgres.catalog import images
from storage.postgres.connection import Script
from storage.records.search.search import FacetCount, Kind
from storage.stores import AsyncStores


class SearchInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Metadata of the whole search; the next page is missing on the last one."""

    total_items: Annotated[
        int, Meta(description="Everything that matches, also beyond the 1,000 hits that are ranked.")
    ]
    facets: Annotated[
        dict[str, list[FacetCount]], Meta(description="The values of each facet asked for, without its own filter.")
    ]
    degraded: Annotated[list[str], Meta(description="What was left out because it is unavailable: semantic.")]
    next_cursor: str | msgspec.UnsetType = msgspec.UNSET
    next_page: str | msgspec.UnsetType = msgspec.UNSET


class ModelsFound(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="model"):
    """A page of models, best first."""

    items: list[ModelView]
    metadata: SearchInfo


class ImagesFound(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """A page of images, best first."""

    items: list[ListedImage]
    metadata: SearchInfo


class CreatorsFound(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="creator"):
    """A page of creators, best first."""

    items: list[CreatorItem]
    metadata: SearchInfo


Found: TypeAlias = ModelsFound | ImagesFound | CreatorsFound


async def found(
    stores: AsyncStores,
    kind: Kind,
    page: SearchPage,
    levels: int,
    where: Addresses,
    info: SearchInfo,
    with_meta: bool,
) -> Found:
    """A page in the shape of its kind, in its order.

    What was hidden since it was indexed is not shown: a page may be shorter than asked.
    """
    match kind:
        case Kind.MODEL:
            return ModelsFound(items=await shown_models(stores, page.ids, Shown(levels, where)), metadata=info)
        case Kind.IMAGE:
            listed = await stores.database.run(_images(page, levels, where, with_meta))
            return ImagesFound(items=listed, metadata=info)
        case Kind.CREATOR:
            creators = await stores.database.run(accounts.creators_by_number(page.ids))
            return CreatorsFound(items=[creator_item(one, where) for one in creators], metadata=info)


def _images(page: SearchPage, levels: int, where: Addresses, with_meta: bool) -> Script[list[ListedImage]]:
    # The index may be seconds behind: rows decide what is shown.
    listed = yield from images.listed(page.ids)
    rows = yield from images.shown([identity for identity in page.ids if identity in listed])
    return [listed_image(image, where, with_meta) for image in rows if image.nsfw_level & levels]
