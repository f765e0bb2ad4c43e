"""How a model, a version or an image was used in the last day, week, month and year, and in all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Controller, Request, Response, get
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Reads
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.catalog.reading.model_versions import read_version
from platform_api.http.problems import can_return
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.metrics import rollups
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Scope
from storage.records.metrics.activity import Counted, Metric
from storage.records.metrics.rollups import EntityTotals
from storage.records.policy.checks import check_model, check_seen

Counts = TypeVar("Counts")


class UseCounts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was counted of a model with its versions, or of one version; what was taken back is taken off."""

    view_count: int
    download_count: int
    generation_count: int
    thumbs_up_count: int
    thumbs_down_count: int
    comment_count: int
    tipped_amount_count: int


class ImageCounts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was counted of an image; what was taken back is taken off."""

    view_count: int
    like_count: int
    dislike_count: int
    heart_count: int
    laugh_count: int
    cry_count: int
    comment_count: int


class Periods(msgspec.Struct, Generic[Counts], frozen=True, kw_only=True, rename="pascal"):
    """The last 1, 7, 30 and 365 UTC days, each with `asOf` as its last, and all time."""

    day: Counts
    week: Counts
    month: Counts
    year: Counts
    all_time: Counts


class StatsOf(msgspec.Struct, Generic[Counts], frozen=True, kw_only=True, rename="camel"):
    """Counts by period, as the last roll-up left them."""

    id: int
    as_of: Annotated[date | None, Meta(description="The UTC day that they are of; null: nothing was counted yet.")]
    stats: Periods[Counts]


_USE = {
    Metric.VIEW: "view_count",
    Metric.DOWNLOAD: "download_count",
    Metric.GENERATION: "generation_count",
    Metric.THUMBS_UP: "thumbs_up_count",
    Metric.THUMBS_DOWN: "thumbs_down_count",
    Metric.COMMENT: "comment_count",
    Metric.TIP: "tipped_amount_count",
}
_IMAGE = {
    Metric.VIEW: "view_count",
    Metric.LIKE: "like_count",
    Metric.DISLIKE: "dislike_count",
    Metric.HEART: "heart_count",
    Metric.LAUGH: "laugh_count",
    Metric.CRY: "cry_count",
    Metric.COMMENT: "comment_count",
}


class PeriodStats(Controller):
    """Counts by period."""

    guards = (Reads(Scope.MODELS_READ),)

    @get(
        "/models/{model_id:int}/stats",
        tags=("Models",),
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="A model's counts by period",
    )
    async def of_model(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, model_id: FromPath[int]
    ) -> Response[StatsOf[UseCounts]]:
        """How a model and its versions were used; `AllTime` has what the model itself says under `stats`."""

        def script() -> Script[EntityTotals]:
            check_model((yield from catalog.model_by_id(model_id)), viewer)
            return (yield from rollups.taken_up(Counted.MODEL, model_id))

        return respond(request, _stats(model_id, await stores.database.run(script), UseCounts, _USE))

    @get(
        "/model-versions/{version_id:int}/stats",
        tags=("Models",),
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="A version's counts by period",
    )
    async def of_version(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, version_id: FromPath[int]
    ) -> Response[StatsOf[UseCounts]]:
        """How one version was used."""

        def script() -> Script[EntityTotals]:
            yield from read_version(version_id, viewer)
            return (yield from rollups.taken_up(Counted.VERSION, version_id))

        return respond(request, _stats(version_id, await stores.database.run(script), UseCounts, _USE))

    @get(
        "/images/{image_id:int}/stats",
        tags=("Images",),
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="An image's counts by period",
    )
    async def of_image(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, image_id: FromPath[int]
    ) -> Response[StatsOf[ImageCounts]]:
        """How an image was received."""

        def script() -> Script[EntityTotals]:
            check_seen(viewer, (yield from policy.image(image_id)).facts)
            return (yield from rollups.taken_up(Counted.IMAGE, image_id))

        return respond(request, _stats(image_id, await stores.database.run(script), ImageCounts, _IMAGE))


def _stats(entity_id: int, found: EntityTotals, kind: type[Counts], fields: Mapping[Metric, str]) -> StatsOf[Counts]:
    """The counts of `kind`, whose `fields` say what each metric is called."""

    def counts(period: str) -> Counts:
        return kind(**{field: getattr(found.of(metric), period) for metric, field in fields.items()})

    periods = Periods(
        day=counts("day"),
        week=counts("week"),
        month=counts("month"),
        year=counts("year"),
        all_time=counts("all_time"),
    )
    return StatsOf(id=entity_id, as_of=found.as_of, stats=periods)
