"""The application: `create_app(settings)` wires every route, guard, limit and error on one screen."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncGenerator
from typing import Any, cast

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from platform_api import openapi
from platform_api.access.guards import provide_caller, provide_viewer
from platform_api.access.key_checks import KeyChecks
from platform_api.accounts.keys import Keys
from platform_api.accounts.people import People
from platform_api.cache.response_cache import ResponseCache, cache_responses
from platform_api.catalog.reading.images import Images
from platform_api.catalog.reading.model_downloads import ModelDownloads
from platform_api.catalog.reading.model_versions import ModelVersions
from platform_api.catalog.reading.models import Models
from platform_api.catalog.reading.period_stats import PeriodStats
from platform_api.catalog.reading.tags import Tags
from platform_api.catalog.uploads import tus, tus_routes, tus_upload
from platform_api.catalog.uploads.model_files import ModelFiles
from platform_api.catalog.writing.image_routes import ImageWriteRoutes
from platform_api.catalog.writing.model_routes import ModelWriteRoutes
from platform_api.catalog.writing.version_routes import VersionWriteRoutes
from platform_api.generation.backends import GenerationBackends
from platform_api.generation.generations import Generations
from platform_api.generation.publishing import PicturePublishing
from platform_api.generation.sources import GenerationSources
from platform_api.http import multipart, problems
from platform_api.http.head_requests import handling_head
from platform_api.http.headers import complete_headers
from platform_api.http.json_bodies import MAX_BODY_BYTES
from platform_api.http.limits import ConcurrencyLimit
from platform_api.http.links import API
from platform_api.http.request_log import logging_requests
from platform_api.http.shutdown import Stopping, handling_signals
from platform_api.jobs.base_models import BaseModels
from platform_api.jobs.data_sets import DataSets
from platform_api.jobs.training_jobs import TrainingJobs
from platform_api.metrics.activity import ActivityResource
from platform_api.metrics.activity_buffer import ActivityBuffer
from platform_api.metrics.freshness import Freshness
from platform_api.metrics.leaderboards import Leaderboards
from platform_api.metrics.metrics import Metrics, flow_metrics
from platform_api.moderation.moderation import Moderation
from platform_api.notifications.channel_addresses import ChannelAddresses
from platform_api.notifications.channels import NotificationChannels
from platform_api.notifications.notification_links import NotificationLinks
from platform_api.notifications.notifications import Notifications
from platform_api.orchestration.routes import orchestration
from platform_api.search.search import SearchResource
from platform_api.social.comments import Comments
from platform_api.social.social import Follows, Reactions
from platform_api.streams.job_events import Announcements
from platform_api.streams.stream_keys import StreamKeys
from platform_api.upkeep.health import Health
from platform_api.upkeep.health_checks import KeptLook, look
from storage.blobs.image_workers import ImageWorkers
from storage.blobs.parts import PartialUploads
from storage.logs import configure
from storage.settings import Settings, load_settings
from storage.stores import AsyncStores, open_async_stores

RESOURCES = (
    DataSets,
    BaseModels,
    TrainingJobs,
    Generations,
    GenerationSources,
    GenerationBackends,
    PicturePublishing,
    Models,
    ModelWriteRoutes,
    ModelVersions,
    VersionWriteRoutes,
    ModelFiles,
    tus_routes.Uploads,
    Images,
    ImageWriteRoutes,
    Moderation,
    Keys,
    People,
    Tags,
    SearchResource,
    Follows,
    Reactions,
    Comments,
    ActivityResource,
    Notifications,
    Freshness,
    Leaderboards,
    PeriodStats,
    NotificationChannels,
    ChannelAddresses,
    NotificationLinks,
)

END_SECONDS = 2.0
UPLOADS_PER_ACCOUNT = 4
"""Uploads that one account may send at once, to one process."""


def create_app(settings: Settings) -> Litestar:
    """The API over these settings' stores, which its lifespan opens and closes. It starts also while they are
    unavailable."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with open_async_stores(settings) as stores, _serving(app.state, stores):
            yield

    app = Litestar(
        # Downloads stand outside of /api/v1, where Civitai's clients expect them.
        route_handlers=[
            Router(API, route_handlers=list(RESOURCES)),
            *(ModelDownloads, Health, Metrics),
            *orchestration(settings.orchestration),
        ],
        lifespan=[lifespan],
        state=State({"refusals": problems.Refusals()}),
        dependencies={
            # sync_to_thread=False: each only reads a field, which is not worth a thread for each request.
            "stores": Provide(provide_stores, sync_to_thread=False),
            "caller": Provide(provide_caller, sync_to_thread=False),
            "viewer": Provide(provide_viewer, sync_to_thread=False),
            "in_progress": Provide(provide_uploads_in_progress, sync_to_thread=False),
        },
        exception_handlers=problems.HANDLERS,
        middleware=[cache_responses],
        before_send=[complete_headers, tus.name_version(tus_routes.ROOT)],
        response_headers=openapi.SHARED_HEADERS,
        # Of JSON. Routes that take files set it to None and bound their bodies by themselves, as they come.
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi.config(),
        # Litestar's own would configure the root logger again, over what `storage.logs` has set.
        logging_config=None,
    )
    # Raises for a route that names no scope: it is found at the start, not by whoever gets in.
    openapi.state_scopes(app)
    return app


def app_from_environment() -> ASGIApp:
    """What uvicorn serves: `uvicorn platform_api.app:app_from_environment --factory --no-proxy-headers`."""
    settings = load_settings()
    configure(settings.logs)
    allow_many_files()
    return served(settings)


def served(settings: Settings) -> ASGIApp:
    """The API as it is served: with HEAD and a log line for each request, and behind the proxies whose word for the
    client's address is taken."""
    # In this order: the log line of a HEAD says HEAD, and limits count by the address that the proxy names.
    app, trusted = logging_requests(handling_head(create_app(settings))), settings.api.trusted_proxies
    # Ours and not uvicorn's own, which takes the word of any program of this machine unless configured otherwise.
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted)) if trusted else app


def allow_many_files() -> None:
    """Let this process open as many files as it may: each client of a stream is one. Usually 1,024 at first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def provide_stores(state: State) -> AsyncStores:
    """The stores that the lifespan opened."""
    return state.stores


def provide_uploads_in_progress(state: State) -> tus_upload.UploadsInProgress:
    """Uploads of model files under way at this process."""
    return state.in_progress


@contextlib.asynccontextmanager
async def _serving(state: State, stores: AsyncStores) -> AsyncGenerator[None]:
    """What runs beside the routes: announcements, ticks, the buffer of acts, the sweep of uploads, image children."""
    await asyncio.to_thread(multipart.sweep_staging, stores.settings)
    state.stores = stores
    state.stopping = stopping = Stopping()
    state.health = KeptLook(lambda: look(stores))
    state.flow_metrics = KeptLook(lambda: flow_metrics(stores))
    state.key_checks = KeyChecks(stores)
    state.response_cache = ResponseCache(stores.settings, stores.watch)
    state.announcements = Announcements(stores.database, stopping)
    # Of this process: each stream is an open file and a task here.
    state.streams = ConcurrencyLimit(
        "event streams",
        per_account=stores.settings.api.max_streams_per_account,
        total=stores.settings.api.max_streams,
    )
    state.stream_keys = StreamKeys(stores.database)
    state.uploads = ConcurrencyLimit("uploads", per_account=UPLOADS_PER_ACCOUNT, total=16)
    state.image_workers = ImageWorkers(stores.settings.uploads.max_pixels)
    state.activity_buffer = ActivityBuffer(stores.database)
    state.in_progress = tus_upload.UploadsInProgress(
        stores, PartialUploads(stores.settings.model_uploads_folder), stopping
    )
    works = (
        state.announcements.listen(),
        stores.progress.listen(),
        state.activity_buffer.flush_periodically(),
        state.key_checks.keep_noting(),
        state.stream_keys.keep_checking(),
        tus_upload.keep_sweeping(state.in_progress),
    )
    beside = [asyncio.create_task(work) for work in works]
    try:
        # Around all that runs, because uvicorn notifies an application of a stop only when every connection is closed.
        with handling_signals(stopping):
            yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside, timeout=END_SECONDS)  # the client of Valkey swallows that while it connects
        # What was counted in the last second; the task that wrote it down has been cancelled.
        await state.activity_buffer.flush()
        await state.key_checks.note_uses()
        await asyncio.to_thread(state.image_workers.close)
