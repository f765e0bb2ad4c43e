"""A picture of a generation into the gallery of the version that drew it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, post
from litestar.datastructures import State
from litestar.openapi.spec import Operation
from litestar.params import FromPath

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Caller
from platform_api.access.permissions import held_version
from platform_api.access.reservations import Reservation, reserving
from platform_api.catalog.reading.catalog_views import ImageView
from platform_api.catalog.writing.image_routes import LEVEL_WORDS, LEVELS, check_level, check_room, gallery_view
from platform_api.catalog.writing.model_routes import WRITES
from platform_api.generation.picture_meta import DrawnPictureFacts, gallery_meta, picture_facts, versions_of
from platform_api.http import multipart
from platform_api.http.downloads import plain_path
from platform_api.http.links import addresses
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters, described, integer_schema
from platform_api.jobs.job_views import NOUNS, job_of_kind
from storage.blobs.image_workers import ImageWorkers
from storage.errors import InvalidRequest, NotFound, WrongState
from storage.postgres.catalog import catalog, images
from storage.postgres.connection import Script
from storage.postgres.jobs import job_files
from storage.postgres.policy import policy
from storage.records.catalog.catalog import CatalogImage, Model, ModelVersion, NewImage
from storage.records.catalog.variants import primary_file
from storage.records.catalog.vocabulary import BrowsingLevel
from storage.records.jobs.jobs import Job, JobFile, JobFileRole, JobKind
from storage.stores import AsyncStores

PNG = "image/png"


@dataclass
class PublishPictureOperation(Operation):
    """The query, which the handler reads."""

    def __post_init__(self) -> None:
        """Describe the query."""
        version = integer_schema(), "One of the versions that drew it, such as an adapter; default: the model."
        parameters = {"nsfwLevel": (LEVELS, LEVEL_WORDS), "modelVersionId": version}
        self.parameters = [*(self.parameters or []), *described(parameters)]


@dataclass(frozen=True)
class GalleryFile:
    """A picture's bytes as a gallery keeps them, which are stored."""

    sha256: str
    size: int
    width: int
    height: int
    blurhash: str


class PicturePublishing(Controller):
    """Pictures that are shown with models."""

    path = f"/{NOUNS[JobKind.GENERATION]}/{{job_id:uuid}}/images"
    tags = ("Generations",)
    guards = WRITES

    @post(
        "/{name:str}/publish",
        responses=can_return(401, 403, 404, 409, 410, 422, 429),
        operation_class=PublishPictureOperation,
        status_code=201,
        summary="Show a picture with the version that drew it",
    )
    async def publish_picture(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        state: State,
        job_id: FromPath[UUID],
        name: FromPath[str],
    ) -> Response[ImageView]:
        """A PNG is shown with its very bytes, another picture as a PNG; `meta` says how it was drawn. The version must
        be yours. The same picture again is the same image."""
        query = QueryParameters(request)
        level = query.number("nsfwLevel", high=BrowsingLevel.BLOCKED) or BrowsingLevel.PG
        wanted = query.number("modelVersionId")
        query.check()
        check_level(level, viewer)
        where = addresses(request, stores.settings.api)

        def found() -> Script[tuple[Job, JobFile]]:
            job = yield from job_of_kind(job_id, caller.account_id, JobKind.GENERATION)
            return job, (yield from _picture(job_id, name))

        job, file = await stores.database.run(found)
        async with _kept(stores, caller, state.image_workers, file) as (kept, reservation):
            facts = picture_facts(job, file, kept.width, kept.height)
            version_id = _chosen(facts, wanted, file)

            def script() -> Script[ImageView]:
                # Again, in the transaction that names its bytes: files of a job may be deleted at any time.
                yield from _picture(job_id, name)
                model, version = yield from held_version(version_id, viewer)
                shown = yield from _shown(version_id, kept.sha256, stores.settings.uploads.max_images)
                if shown is None:
                    yield from reservation.redeem()
                    yield from check_room(version_id, stores.settings.uploads)
                    meta = yield from _meta(facts, model, version)
                    [image_id] = yield from catalog.add_images(
                        version_id, caller.account_id, [_new_image(kept, int(level), meta)]
                    )
                    shown = yield from images.of_version(version_id, image_id)
                return gallery_view(model, version, shown, where)

            view = await stores.database.run(script)
        return Response(view, status_code=201, headers={"Location": view.url})


def _picture(job_id: UUID, name: str) -> Script[JobFile]:
    """A picture among the files of a job. Raises NotFound, and Gone for one drawn with a model that was taken down."""
    file = yield from job_files.file(job_id, plain_path(PurePosixPath(name)))
    if file.role is not JobFileRole.IMAGE:
        raise NotFound(f"'{file.name}' is no picture of job {job_id}. Its detail lists them as `images`.")
    yield from policy.job_file(job_id, file.sha256)
    return file


@asynccontextmanager
async def _kept(
    stores: AsyncStores, caller: Caller, workers: ImageWorkers, file: JobFile
) -> AsyncGenerator[tuple[GalleryFile, Reservation]]:
    """A picture's bytes for a gallery: a PNG as it is, another as a canonical PNG, for which there is room."""
    known = _measured(file)
    async with reserving(stores, caller, file.size) as reservation, multipart.staging_folder(stores) as folder:
        if known is None:
            known = await _made_png(stores, workers, file, folder)
            await reservation.becomes(known.size)
        yield known, reservation


def _measured(file: JobFile) -> GalleryFile | None:
    """A PNG whose measures its row has."""
    width, height, blurhash = (file.details.get(name) for name in ("width", "height", "blurhash"))
    if file.media_type == PNG and isinstance(width, int) and isinstance(height, int) and isinstance(blurhash, str):
        return GalleryFile(file.sha256, file.size, width, height, blurhash)
    return None


async def _made_png(stores: AsyncStores, workers: ImageWorkers, file: JobFile, folder: Path) -> GalleryFile:
    source, target = folder / "picture", folder / "canonical.png"
    await stores.pools.blob_writes.run(stores.blobs.fetch, file.sha256, source)
    made = await stores.pools.images.run(workers.canonicalise, source, target)
    if file.media_type == PNG:
        return GalleryFile(file.sha256, file.size, made.width, made.height, made.blurhash)
    blob = await stores.pools.blob_writes.run(stores.blobs.put_file, target)
    return GalleryFile(blob.sha256, blob.size, made.width, made.height, made.blurhash)


def _chosen(facts: DrawnPictureFacts, wanted: int | None, file: JobFile) -> int:
    """The version whose gallery it goes to. Raises InvalidRequest, WrongState."""
    versions = versions_of(facts.drawing)
    if not versions:
        raise WrongState(f"Picture '{file.name}' was drawn by no version of the catalogue.")
    if wanted is not None and wanted not in versions:
        known = ", ".join(map(str, versions))
        raise InvalidRequest({"modelVersionId": f"version {wanted} did not draw this picture; {known} did"})
    return versions[0] if wanted is None else wanted


def _shown(version_id: int, sha256: str, most: int) -> Script[CatalogImage | None]:
    """The image with these bytes that the version has."""
    found = yield from images.of_versions([version_id], most)
    return next((image for image in found if image.sha256 == sha256), None)


def _meta(facts: DrawnPictureFacts, model: Model, version: ModelVersion) -> Script[dict[str, object]]:
    """How the picture was drawn, with the hashes that other tools know its model and adapters by."""
    drawing, hashes = facts.drawing, dict[int, str]()
    for version_id in versions_of(drawing):
        file = primary_file((yield from catalog.files(version_id)))
        if file is not None:
            # As A1111 writes them into pictures: AutoV2 of a model, AutoV3 of an adapter.
            known = file.hashes.auto_v2 if version_id == drawing.model.version_id else file.hashes.auto_v3
            hashes |= {version_id: known} if known else {}
    name = drawing.model.name
    if not name and drawing.model.version_id == version.id:
        name = f"{model.name} {version.name}".strip()
    return gallery_meta(facts, name, hashes)


def _new_image(kept: GalleryFile, level: int, meta: dict[str, object]) -> NewImage:
    return NewImage(
        sha256=kept.sha256,
        size=kept.size,
        media_type=PNG,
        width=kept.width,
        height=kept.height,
        blurhash=kept.blurhash,
        nsfw_level=level,
        meta=meta,
    )
