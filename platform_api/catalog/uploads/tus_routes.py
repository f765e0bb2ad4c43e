"""Model files in parts, by tus 1.0.0: an upload goes on where it broke off, whatever died in between."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, HttpMethod, Request, Response, delete, patch, post, route
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Caller, Open, Requires
from platform_api.catalog.uploads import tus, tus_upload
from platform_api.catalog.uploads.incoming_files import read_wanted
from platform_api.catalog.uploads.model_files import UploadedFile, uploaded_file
from platform_api.catalog.uploads.tus_documentation import empty_response, tus_operation
from platform_api.catalog.uploads.tus_upload import UploadsInProgress
from platform_api.http.links import API
from platform_api.http.problems import BodyTooLarge, can_return
from storage.errors import InvalidRequest
from storage.postgres.catalog import uploads
from storage.postgres.connection import Script
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import VersionFile
from storage.records.catalog.uploads import ModelUpload, WantedFile
from storage.records.catalog.vocabulary import FileType

ROOT = f"{API}/uploads"
_WRITES = Requires(Scope.MODELS_WRITE)


class UploadView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An upload. `offset` of `length` bytes are received; once all are, `file` is what they became."""

    id: UUID
    version_id: int
    name: Annotated[str, Meta(examples=["copper-lantern.safetensors"])]
    type: FileType
    offset: int
    length: int
    created_at: datetime
    expires_at: Annotated[datetime, Meta(description="When it is given up unless more bytes come.")]
    file: UploadedFile | None


_SENDING = can_return(401, 403, 404, 408, 409, 410, 412, 413, 415, 422, 423, 429, 460)
"""The refusals of bytes of an upload, whichever method brings them."""


class Uploads(Controller):
    """Model files in parts."""

    path = "/uploads"
    tags = ("Uploads",)

    @route(
        ["/", "/{upload_id:uuid}"],
        http_method=[HttpMethod.OPTIONS],
        guards=[Open("what an upload may be is no secret; clients ask before they have a key")],
        status_code=204,
        include_in_schema=False,
    )
    async def capabilities(self, stores: AppStores) -> Response[None]:
        """What this server can do, for clients of tus."""
        # Litestar takes handlers by their names' order and adds its own OPTIONS to a path that has none yet: this one
        # must come first. A test asks.
        maximum = stores.settings.uploads.max_model_bytes
        return Response(None, status_code=204, headers=tus.capabilities(maximum))

    @post(
        "/",
        guards=[_WRITES],
        operation_class=tus_operation(
            "Tus-Resumable", "Upload-Length", "Upload-Metadata", optional=("Upload-Checksum",), body=True
        ),
        request_max_body_size=None,
        responses={
            201: empty_response("Location is the upload"),
            **_SENDING,
        },
        summary="Begin an upload",
    )
    async def create(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        state: State,
        in_progress: NamedDependency[UploadsInProgress],
    ) -> Response[None]:
        """A file of a version that is yours. The first bytes may come along. OPTIONS says what the server can do."""
        tus.check_version(request.headers)
        length = _read_length(request.headers, stores.settings.uploads.max_model_bytes)
        metadata = request.headers.get("upload-metadata", "")
        wanted, checksum = _read_wanted(metadata), tus.read_checksum(request.headers)
        brings_bytes = _brings_bytes(request.headers)
        upload = await tus_upload.begin(in_progress, wanted, length, metadata, viewer)
        if brings_bytes:
            async with (
                tus_upload.unless_it_fails(in_progress, upload.id),
                state.uploads.hold(caller.account_id),
            ):
                upload = await tus_upload.append(in_progress, request, upload.id, caller, 0, checksum)
        headers = {"Location": f"{ROOT}/{upload.id}", **tus.upload_headers(upload)}
        return Response(None, status_code=201, headers=headers)

    @route(
        "/{upload_id:uuid}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        guards=[_WRITES],
        operation_class=tus_operation(optional=("Tus-Resumable",)),
        status_code=200,
        responses=can_return(401, 403, 404, 410, 412),
        summary="How far an upload is",
    )
    async def show(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, upload_id: FromPath[UUID]
    ) -> Response[UploadView]:
        """Its offset in the headers (HEAD speaks tus), and in the body. A finished one says what file it became."""
        # A GET is ours, for people and programs that speak no tus.
        if request.method == HttpMethod.HEAD:
            tus.check_version(request.headers)

        def script() -> Script[tuple[ModelUpload, UploadView]]:
            upload = yield from uploads.get(upload_id, viewer)
            return upload, _view(upload, (yield from uploads.file_of(upload)))

        upload, view = await stores.database.run(script)
        return Response(view, headers=tus.upload_headers(upload))

    @patch(
        "/{upload_id:uuid}",
        guards=[_WRITES],
        operation_class=tus_operation("Tus-Resumable", "Upload-Offset", optional=("Upload-Checksum",), body=True),
        request_max_body_size=None,
        status_code=204,
        responses={
            204: empty_response("Upload-Offset is where to go on"),
            **_SENDING,
        },
        summary="Send bytes of an upload",
    )
    async def send(
        self,
        request: Request[Any, Any, Any],
        caller: RequestCaller,
        state: State,
        in_progress: NamedDependency[UploadsInProgress],
        upload_id: FromPath[UUID],
    ) -> Response[None]:
        """The bytes behind those that are there. With the last ones the file is checked and joins its version."""
        async with state.uploads.hold(caller.account_id):
            return await _send(request, in_progress, upload_id, caller)

    @delete(
        "/{upload_id:uuid}",
        guards=[_WRITES],
        operation_class=tus_operation("Tus-Resumable"),
        responses=can_return(401, 403, 404, 410, 412, 423),
        summary="Give an upload up",
    )
    async def remove(
        self,
        request: Request[Any, Any, Any],
        viewer: RequestViewer,
        in_progress: NamedDependency[UploadsInProgress],
        upload_id: FromPath[UUID],
    ) -> None:
        """Its bytes are removed. A file that it became already stays."""
        tus.check_version(request.headers)
        await tus_upload.remove(in_progress, upload_id, viewer)

    @post(
        "/{upload_id:uuid}",
        guards=[_WRITES],
        operation_class=tus_operation(
            *("Tus-Resumable", "X-HTTP-Method-Override"), optional=("Upload-Offset", "Upload-Checksum"), body=True
        ),
        request_max_body_size=None,
        status_code=204,
        responses={
            204: empty_response("What the method that it stands for returns"),
            **_SENDING,
        },
        summary="PATCH or DELETE by POST",
    )
    async def stand_in(
        self,
        request: Request[Any, Any, Any],
        caller: RequestCaller,
        viewer: RequestViewer,
        state: State,
        in_progress: NamedDependency[UploadsInProgress],
        upload_id: FromPath[UUID],
    ) -> Response[None]:
        """For clients behind a proxy that passes neither; X-HTTP-Method-Override says which it stands for."""
        match request.headers.get("x-http-method-override", ""):
            case "PATCH":
                async with state.uploads.hold(caller.account_id):
                    return await _send(request, in_progress, upload_id, caller)
            case "DELETE":
                tus.check_version(request.headers)
                await tus_upload.remove(in_progress, upload_id, viewer)
                return Response(None, status_code=204)
            case _:
                raise InvalidRequest({"X-HTTP-Method-Override": "expected PATCH or DELETE"})


async def _send(
    request: Request[Any, Any, Any], in_progress: UploadsInProgress, upload_id: UUID, caller: Caller
) -> Response[None]:
    tus.check_version(request.headers)
    tus.check_media_type(request.headers)
    offset, checksum = tus.read_number(request.headers, "Upload-Offset"), tus.read_checksum(request.headers)
    upload = await tus_upload.append(in_progress, request, upload_id, caller, offset, checksum)
    return Response(None, status_code=204, headers=tus.upload_headers(upload))


def _read_length(headers: Mapping[str, str], maximum: int) -> int:
    length = tus.read_number(headers, "Upload-Length")
    if length > maximum:
        raise BodyTooLarge(f"{length:,} bytes; a model file has {maximum:,} at most.")
    if not length:
        raise InvalidRequest({"Upload-Length": "a model file has at least one byte"})
    return length


def _read_wanted(metadata: str) -> WantedFile:
    fields = tus.read_metadata(metadata)
    version, name = fields.get("versionId", ""), fields.get("filename")
    if not (version.isascii() and version.isdigit() and len(version) <= 18) or name is None:
        raise InvalidRequest({"Upload-Metadata": "needs versionId, the version's number, and filename"})
    return read_wanted(int(version), name, fields.get("fileType"), fields.get("sha256"))


def _brings_bytes(headers: Mapping[str, str]) -> bool:
    """Whether a creation brings the first bytes along. Raises UnsupportedMediaType for a body of another kind."""
    # A body without a length comes in chunks.
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return False
    tus.check_media_type(headers)
    return True


def _view(upload: ModelUpload, file: VersionFile | None) -> UploadView:
    return UploadView(
        id=upload.id,
        version_id=upload.version_id,
        name=upload.name,
        type=upload.type,
        offset=upload.received,
        length=upload.length,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        file=None if file is None else uploaded_file(file),
    )
