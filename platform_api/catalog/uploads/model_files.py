"""A model file in one piece: PUT to the address under which it is then read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
from litestar import Controller, Request, Response, put
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, Parameter, QueryParameter
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Requires
from platform_api.access.reservations import reserving
from platform_api.catalog.uploads.incoming_files import go_on, keep_whole, read_wanted, take_in
from platform_api.catalog.uploads.tus_upload import UploadsInProgress
from platform_api.http.links import API
from platform_api.http.multipart import declared_length
from platform_api.http.problems import UnsupportedMediaType, can_return
from platform_api.http.request_body import Body
from storage.blobs.hashing import ModelHasher
from storage.blobs.parts import PartialUpload, PartialUploads
from storage.errors import FileExists, FreeSpaceLow, Gone, NotAllowed, NotFound, QuotaExceeded, UploadRefused
from storage.postgres.catalog import uploads
from storage.postgres.connection import Script
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import Checked, FileHashes, NewFile, VersionFile
from storage.records.catalog.vocabulary import FileType
from storage.thread_pools import ThreadPool

_FORMS = ("multipart/", "application/json")


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an upload became. `size` is in bytes."""

    id: int
    version_id: int
    name: Annotated[str, Meta(examples=["copper-lantern.safetensors"])]
    type: FileType
    size: int
    sha256: str
    hashes: FileHashes
    checked: Annotated[
        Checked | None,
        Meta(description="family: its tensors are those of its base model's family; structure: it is sound."),
    ]
    fp: Annotated[str | None, Meta(examples=["fp16"])]
    size_kind: str | None
    url: str


def uploaded_file(file: VersionFile) -> UploadedFile:
    """A file as its uploader sees it."""
    return UploadedFile(
        id=file.id,
        version_id=file.version_id,
        name=file.path,
        type=file.type,
        size=file.size,
        sha256=file.sha256,
        hashes=file.hashes,
        checked=file.checked,
        fp=file.fp,
        size_kind=file.size_kind,
        url=f"{API}/model-versions/{file.version_id}/files/{quote(file.path)}",
    )


@dataclass
class FileOperation(Operation):
    """The file's bytes, which the handler reads as they come."""

    def __post_init__(self) -> None:
        """Describe the body."""
        binary = Schema(type=OpenAPIType.STRING, format="binary")  # pyright: ignore[reportArgumentType]
        content = {"application/octet-stream": OpenAPIMediaType(schema=binary)}
        self.request_body = RequestBody(content=content, required=True)


class ModelFiles(Controller):
    """A version's files, written by their path."""

    path = "/model-versions"
    tags = ("Uploads",)

    @put(
        "/{version_id:int}/files/{path:path}",
        guards=[Requires(Scope.MODELS_WRITE)],
        operation_class=FileOperation,
        request_max_body_size=None,
        status_code=201,
        responses=can_return(401, 403, 404, 408, 409, 410, 413, 415, 422, 429),
        summary="Upload a file in one piece",
    )
    async def upload(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        state: State,
        in_progress: NamedDependency[UploadsInProgress],
        version_id: FromPath[int],
        path: FromPath[PurePosixPath],
        file_type: Annotated[
            str | None, QueryParameter(name="type", required=False, description="What it is; Model by default.")
        ] = None,
        sha256: Annotated[
            str | None, Parameter(required=False, max_length=64, description="What its bytes must come to.")
        ] = None,
    ) -> Response[UploadedFile]:
        """The bytes as they are (curl -T FILE). They are checked while they come; a refused file leaves nothing.

        The same bytes under the same name again change nothing. Larger files go on where they broke off when they are
        sent in parts: POST /api/v1/uploads.
        """
        wanted = read_wanted(version_id, str(path).lstrip("/"), file_type, sha256)
        # A form's boundary would become a part of the file.
        if request.headers.get("content-type", "").lower().startswith(_FORMS):
            raise UnsupportedMediaType("Send the file's bytes as they are: curl -T FILE URL")
        # Before the bytes: who may not put a file there should not have to send it first.
        await stores.database.run(uploads.check_target(wanted, viewer))
        maximum, declared = stores.settings.uploads.max_model_bytes, declared_length(request)
        hasher, threads = ModelHasher(), stores.pools.blob_writes
        async with (
            state.uploads.hold(caller.account_id),
            reserving(stores, caller, min(declared or 0, maximum)) as reservation,
            temporary_part(in_progress.parts, threads) as part,
        ):
            body = Body(request, maximum, f"A model file has at most {maximum:,} bytes.", reservation.arrived)
            body.check_declared_length()

            def script(new: NewFile) -> Script[tuple[VersionFile, bool]]:
                yield from reservation.redeem()
                return (yield from uploads.attach(version_id, new))

            try:
                await go_on(part, hasher, threads, 0)
                await take_in(body, part, hasher, threads, name=wanted.name, length=declared)
                new = await keep_whole(stores, part, hasher, wanted, viewer)
                file, is_new = await stores.database.run(lambda: script(new))
            except (UploadRefused, FileExists, Gone, NotAllowed, NotFound, QuotaExceeded, FreeSpaceLow):
                # A server that responds and closes while the client still sends is a broken connection to it, not a
                # reason.
                await body.drain()
                raise
        made = uploaded_file(file)
        return Response(made, status_code=201 if is_new else 200, headers={"Location": made.url})


@asynccontextmanager
async def temporary_part(parts: PartialUploads, threads: ThreadPool) -> AsyncGenerator[PartialUpload]:
    """A part for one request, gone at the end whatever happens."""
    identity = uuid4()
    await threads.run(parts.create, identity)
    try:
        with parts.hold(identity) as part:
            yield part
    finally:
        # Shielded, because a client that leaves cancels the request in the middle of this.
        await asyncio.shield(asyncio.to_thread(parts.remove, identity))
