"""Blobs: pictures that an account sends, and those that its workflows draw."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, head, post
from litestar.datastructures import State
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, QueryParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Open, Requires
from platform_api.http import downloads
from platform_api.http.links import Addresses, addresses, link_expiry
from platform_api.orchestration import sent_pictures
from platform_api.orchestration.blob_links import BlobLink, blob_address, read_blob_link, upload_address
from platform_api.orchestration.refusals import can_return
from platform_api.orchestration.signed_uploads import RequiresOrSigned
from storage.errors import LinkRefused, NotAllowed, NotFound, WrongState
from storage.postgres.accounts import quotas
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.source_pictures import SentPicture
from storage.postgres.orchestration import workflow_pages
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import JobFile
from storage.records.orchestration.blob_names import SentBlob, read_blob_id
from storage.records.orchestration.documents import ImageBlob
from storage.records.orchestration.left_out import UNRATED
from storage.records.orchestration.rendering import job_id_of
from storage.records.policy.checks import check_fetched
from storage.records.policy.viewers import Viewer

_READ, _WRITE = [Requires(Scope.JOBS_READ)], [Requires(Scope.JOBS_WRITE)]


class UploadAddress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a browser sends a picture to, without a key, until then."""

    upload_url: str
    expires_at: datetime


class FoundBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that is there: its bytes and its pixels. `job_id`: of the step that drew it."""

    id: str
    sha256: str
    size: int
    media_type: str
    width: int | None
    height: int | None
    job_id: str | None = None


class BlobUploadOperation(Operation):
    """The upload's body, which the handler reads as it comes."""

    def __post_init__(self) -> None:
        """Describe the bare picture and the form."""
        binary = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        form = Schema(type=OpenAPIType.OBJECT, properties={"files": binary}, required=["files"])
        bare = {kind: OpenAPIMediaType(schema=binary) for kind in sent_pictures.EXPECTED.kinds}
        content = {"multipart/form-data": OpenAPIMediaType(schema=form), **bare}
        self.request_body = RequestBody(content=content, required=True)


class Blobs(Controller):
    """Pictures by their ids, and by addresses that need no key."""

    path = "/consumer/blobs"
    tags = ("Orchestration",)

    @post(
        "/",
        guards=[RequiresOrSigned(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 408, 413, 415),
        operation_class=BlobUploadOperation,
        request_max_body_size=None,
        status_code=201,
        summary="Send a picture",
    )
    async def send_blob(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        sig: Annotated[str | None, QueryParameter(max_length=2000, description="Of a signed address.")] = None,
    ) -> ImageBlob:
        """A PNG, JPEG or WebP, as the body or as `files` of a form: turned upright, stripped of its metadata, kept as a
        PNG. The same picture again is the same blob."""
        sent = await sent_pictures.receive(request, stores, caller, state)
        return sent_view(sent, caller.account_id, addresses(request, stores.settings.api))

    @get("/upload", guards=_WRITE, responses=can_return(401, 403), summary="An address to send a picture to")
    async def sign_upload(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller
    ) -> UploadAddress:
        """For a page that must not know the key: it holds for 15 minutes, and while the key works."""
        url, expires = upload_address(addresses(request, stores.settings.api), caller.key.id)
        return UploadAddress(upload_url=url, expires_at=expires)

    @get("/{blob_id:str}", guards=_READ, responses=can_return(401, 403, 404, 410), status_code=307, summary="A picture")
    async def blob(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        blob_id: FromPath[str],
        filename: Annotated[str | None, QueryParameter(max_length=200, description="Name to save it under.")] = None,
        download: Annotated[bool, QueryParameter(description="Whether a browser saves it.")] = False,
        nsfw_level: Annotated[
            str | None, QueryParameter(name="nsfwLevel", max_length=10, description="Refused: nothing is rated here.")
        ] = None,
    ) -> Response[ImageBlob]:
        """Leads to an address of its bytes that needs no key; the body says what it is."""
        if nsfw_level is not None:
            raise NotAllowed(f"nsfwLevel: {UNRATED}.")
        found = await stores.database.run(lambda: _found(blob_id, caller.account_id))
        where = addresses(request, stores.settings.api)
        view = _view(found, caller.account_id, where, name=_plain(filename or ""), download=download)
        if view.url is None:
            raise LinkRefused("There is no signing key, so no link can be made. Run darkroom up once.")
        return Response(view, status_code=307, headers={"Location": view.url, "Cache-Control": "private, no-store"})

    @head("/{blob_id:str}", guards=_READ, responses=can_return(401, 403, 404), status_code=204, summary="Is it there?")
    async def has_blob(self, stores: AppStores, caller: RequestCaller, blob_id: FromPath[str]) -> None:
        """204 for a picture that is there."""
        await stores.database.run(lambda: _found(blob_id, caller.account_id))

    @delete("/{blob_id:str}", guards=_WRITE, responses=can_return(401, 403, 404, 409), summary="Delete a picture")
    async def remove_blob(self, stores: AppStores, caller: RequestCaller, blob_id: FromPath[str]) -> None:
        """Of those that were sent; what a workflow drew goes with its other files."""

        def script() -> Script[None]:
            named = read_blob_id(blob_id)
            if not isinstance(named, SentBlob):
                yield from _found(blob_id, caller.account_id)
                where = f"/api/v1/generations/{named.job_id}/files"
                raise WrongState(f"Blob '{blob_id}' was drawn: DELETE {where} deletes all that its workflow drew.")
            if not (yield from source_pictures.delete(caller.account_id, named.sha256)):
                raise NotFound(f"No blob '{blob_id}'.")

        await stores.database.run(script)

    @post(
        "/{blob_id:str}/refresh",
        guards=_WRITE,
        responses=can_return(401, 403, 404),
        status_code=200,
        summary="Renew a link",
    )
    async def refresh_blob(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, blob_id: FromPath[str]
    ) -> ImageBlob:
        """A fresh address; a picture that was sent counts as used now, so that it is kept from now on as if new."""

        def script() -> Script[FoundBlob]:
            found = yield from _found(blob_id, caller.account_id)
            if found.job_id is None:
                yield from quotas.hold(caller.account_id, stores.settings.quotas.limits)
                yield from source_pictures.add(
                    caller.account_id, found.sha256, found.size, found.width or 0, found.height or 0
                )
            return found

        return _view(await stores.database.run(script), caller.account_id, addresses(request, stores.settings.api))

    @downloads.read_route(
        "/content/{token:str}",
        guards=[Open("the signature in the address opens this one picture until it expires")],
        summary="Bytes of a picture behind a signed address",
        refusals=can_return(401, 403, 404, 410, 416),
    )
    async def content(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        token: FromPath[str],
    ) -> Response[Any]:
        """The picture, for as long as its owner may see it."""
        link = read_blob_link(token, stores.settings.api)
        found = await stores.database.run(lambda: _opened(link))
        name = link.name or f"{found.id}{'' if '.' in found.id else '.png'}"
        headers = {
            "Cache-Control": f"private, max-age={max(0, min(3600, link.expires - int(time.time())))}",
            "Cross-Origin-Resource-Policy": "cross-origin",
            **({} if link.download else {"Content-Disposition": "inline"}),
        }
        wanted = downloads.Download(found.sha256, found.size, name, found.media_type, headers)
        return await downloads.respond(request, stores.blobs, wanted)


def sent_view(sent: SentPicture, account_id: UUID, where: Addresses) -> ImageBlob:
    """A picture that an account has sent."""
    return _view(_sent(sent), account_id, where)


def _sent(sent: SentPicture) -> FoundBlob:
    return FoundBlob(
        id=sent.sha256,
        sha256=sent.sha256,
        size=sent.size,
        media_type="image/png",
        width=sent.width,
        height=sent.height,
    )


def _drawn(blob_id: str, file: JobFile) -> FoundBlob:
    return FoundBlob(
        id=blob_id,
        sha256=file.sha256,
        size=file.size,
        media_type=file.media_type,
        width=_pixels(file.details.get("width")),
        height=_pixels(file.details.get("height")),
        job_id=job_id_of(file.job_id, str(file.details.get("step", ""))),
    )


def _found(blob_id: str, account_id: UUID) -> Script[FoundBlob]:
    """A blob of an account. Raises NotFound."""
    named = read_blob_id(blob_id)
    if isinstance(named, SentBlob):
        return _sent((yield from workflow_pages.sent(account_id, named.sha256))[1])
    return _drawn(blob_id, (yield from workflow_pages.picture(named.job_id, account_id, named.name)))


def _opened(link: BlobLink) -> Script[FoundBlob]:
    """What a signed address opens now. Raises NotFound, Gone by the policy."""
    named = read_blob_id(link.blob)
    if isinstance(named, SentBlob):
        facts, sent = yield from workflow_pages.sent(link.account_id, named.sha256)
        check_fetched(Viewer(account_id=link.account_id), facts)
        return _sent(sent)
    # Deleted with its workflow, whatever else says of its bytes.
    file = yield from workflow_pages.picture(named.job_id, link.account_id, named.name)
    facts, _ = yield from policy.job_file(named.job_id, file.sha256)
    check_fetched(Viewer(account_id=facts.owner_id), facts)
    return _drawn(link.blob, file)


def _view(found: FoundBlob, account_id: UUID, where: Addresses, *, name: str = "", download: bool = False) -> ImageBlob:
    expires = link_expiry(where.settings)
    link = BlobLink(account_id=account_id, blob=found.id, expires=expires, name=name, download=download)
    url = blob_address(where, link)
    return ImageBlob(
        id=found.id,
        available=True,
        width=found.width,
        height=found.height,
        url=url,
        url_expires_at=None if url is None else datetime.fromtimestamp(expires, UTC),
        job_id=found.job_id,
    )


def _pixels(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _plain(name: str) -> str:
    """A client's file name without folders and control characters."""
    return "".join(letter for letter in re.split(r"[/\\]", name)[-1] if letter.isprintable())[:120]
