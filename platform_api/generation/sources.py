"""Pictures that generations go on from: uploaded, made canonical, and known to their sender alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, post
from litestar.datastructures import State
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Caller, Requires
from platform_api.access.reservations import Reservation, reserving
from platform_api.http import downloads, multipart
from platform_api.http.links import API
from platform_api.http.problems import can_return
from platform_api.jobs.job_views import NOUNS
from storage.blobs.image_workers import CanonicalImage, ImageWorkers
from storage.errors import ImageRefused, InvalidRequest, NotFound
from storage.postgres.accounts import quotas
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.source_pictures import SentPicture
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import JobKind
from storage.stores import AsyncStores

ROOT = f"/{NOUNS[JobKind.GENERATION]}/sources"
FORM_BYTES = 16 * 1024
"""What a form has beside its image: the boundaries."""
ONE_SOURCE = multipart.Expected(multipart.ONE_IMAGE.kinds, {}, multipart.ONE_IMAGE.advice)
_MISSING = "No picture of these bytes is among yours. Send it to POST /api/v1/generations/sources."


class SourceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A picture as it is kept, a PNG: a step names it by its SHA-256 as `image` or `mask`."""

    sha256: str
    width: Annotated[int, Meta(description="Pixels.")]
    height: Annotated[int, Meta(description="Pixels.")]
    size: Annotated[int, Meta(description="Bytes.")]
    url: Annotated[str, Meta(description="The bytes, with a key.")]


@dataclass
class SourceUploadOperation(Operation):
    """The upload's body, which the handler reads as it comes."""

    def __post_init__(self) -> None:
        """Describe the form and the bare image."""
        binary = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        form = Schema(
            type=OpenAPIType.OBJECT, properties={"files": binary}, required=["files"], additional_properties=False
        )
        bare = {kind: OpenAPIMediaType(schema=binary) for kind in ONE_SOURCE.kinds}
        content = {"multipart/form-data": OpenAPIMediaType(schema=form), **bare}
        self.request_body = RequestBody(content=content, required=True)


class GenerationSources(Controller):
    """Pictures to go on from."""

    path = ROOT
    tags = ("Generations",)

    @post(
        "/",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 408, 413, 415, 422, 429),
        operation_class=SourceUploadOperation,
        request_max_body_size=None,
        status_code=201,
        summary="Send a picture to go on from",
    )
    async def send_source(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, state: State
    ) -> Response[SourceView]:
        """A PNG, JPEG or WebP, as the body or as `files` of a form. Turned upright, stripped of its metadata and kept
        as a PNG. The same picture again is the same source. One that no generation has named for long is deleted.
        """
        limits = stores.settings.uploads
        async with (
            state.uploads.hold(caller.account_id),
            reserving(stores, caller, multipart.declared_length(request)) as reservation,
            multipart.staging_folder(stores) as folder,
        ):
            one = multipart.of_one_image(limits, FORM_BYTES)
            upload = await multipart.receive(request, folder, one, ONE_SOURCE, arrived=reservation.arrived)
            target = folder / "canonical.png"
            # In a child with a memory limit, as every image that comes from outside.
            measured = await stores.pools.images.run(_made_canonical, upload, target, state.image_workers)
            await reservation.becomes(measured.size)
            view = source_view(await keep_source(stores, caller, target, measured, reservation))
        return Response(view, status_code=201, headers={"Location": view.url})

    @downloads.read_route("/{sha256:str}", guards=[Requires(Scope.JOBS_READ)], summary="Bytes of a source picture")
    async def source(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, sha256: FromPath[str]
    ) -> Response[Any]:
        """The canonical PNG of a picture that you sent, whole or a range."""
        found = await stores.database.run(source_pictures.of_account(caller.account_id, _digest(sha256)))
        if found is None:
            raise NotFound(_MISSING)
        wanted = downloads.Download(found.sha256, found.size, f"{found.sha256}.png", "image/png")
        return await downloads.respond(request, stores.blobs, wanted)

    @delete(
        "/{sha256:str}",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404),
        summary="Delete a source picture",
    )
    async def remove_source(self, stores: AppStores, caller: RequestCaller, sha256: FromPath[str]) -> None:
        """Generations that name it and have not been drawn yet still draw from it."""
        if not await stores.database.run(source_pictures.delete(caller.account_id, _digest(sha256))):
            raise NotFound(_MISSING)


async def keep_source(
    stores: AsyncStores, caller: Caller, path: Path, measured: CanonicalImage, reservation: Reservation
) -> SentPicture:
    """Keep a canonical picture of the caller's, behind what was reserved for it. Raises QuotaExceeded, Unauthenticated,
    AccountBanned."""
    blob = await stores.pools.blob_writes.run(stores.blobs.put_file, path)

    def script() -> Script[SentPicture]:
        yield from reservation.redeem()
        yield from quotas.hold(caller.account_id, stores.settings.quotas.limits)
        return (
            yield from source_pictures.add(caller.account_id, blob.sha256, blob.size, measured.width, measured.height)
        )

    return await stores.database.run(script)


def source_view(sent: SentPicture) -> SourceView:
    """A source picture as its sender sees it."""
    return SourceView(
        sha256=sent.sha256,
        width=sent.width,
        height=sent.height,
        size=sent.size,
        url=f"{API}{ROOT}/{sent.sha256}",
    )


def _digest(text: str) -> str:
    """A SHA-256 as rows have it. Raises NotFound: what is none names no picture."""
    if len(text) != 64 or not text.isascii() or not text.isalnum():
        raise NotFound(_MISSING)
    return text


def _made_canonical(upload: multipart.Upload, target: Path, workers: ImageWorkers) -> CanonicalImage:
    """The picture made canonical in a child. Raises InvalidRequest, ImageRefused."""
    if not upload.files:
        raise InvalidRequest({"files": "is required: the picture"})
    [file] = upload.files
    try:
        return workers.canonicalise(file.path, target)
    except ImageRefused as refusal:
        raise ImageRefused(refusal.reason, f"'{file.name}' {refusal}.") from refusal
