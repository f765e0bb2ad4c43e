"""Which browsing levels a request asks lists for, read in one way by every list."""

from __future__ import annotations

from litestar.openapi.spec import Schema

from platform_api.http.query_parameters import QueryParameters, integer_schema
from storage.records.catalog.vocabulary import BrowsingLevel
from storage.records.policy.viewers import WITH_BLOCKED, Viewer


def browsing_level_parameter(what: str) -> dict[str, tuple[Schema, str]]:
    """`browsingLevel` for the OpenAPI document; `what` describes its bits."""
    return {"browsingLevel": (integer_schema(0, WITH_BLOCKED), f"{what}; goes before nsfw.")}


def read_browsing_levels(query: QueryParameters, viewer: Viewer, nsfw: int = 0) -> int:
    """The levels to list, as bits, of those that the viewer may see.

    `browsingLevel` decides; without it, or at 0, the levels that the request's `nsfw` stands for; else PG alone, as at
    Civitai.
    """
    level = query.number("browsingLevel", low=0, high=WITH_BLOCKED)
    # Through the viewer last, so that no parameter shows levels that this viewer may not see.
    return viewer.browsing(level or nsfw or int(BrowsingLevel.PG))
