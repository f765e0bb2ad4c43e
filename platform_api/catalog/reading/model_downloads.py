"""Downloads as Civitai's clients ask for them: a version's address leads to one file's signed address for a while."""

from __future__ import annotations

import time
from typing import Annotated, Any, cast
from urllib.parse import quote, urlencode

from litestar import Controller, HttpMethod, Request, Response, route
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, Parameter

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Open, Reads
from platform_api.catalog.reading.images import LinkReader
from platform_api.catalog.reading.model_versions import read_version
from platform_api.http import downloads
from platform_api.http.links import number_of
from platform_api.http.pagination import queried
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters, integer_schema, text_schema
from platform_api.http.rate_limits import LIMITED_AS, RateKind
from platform_api.metrics.activity_buffer import ActivityBuffer
from storage.errors import LinkRefused, NotFound
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import Model, ModelVersion, VersionFile
from storage.records.catalog.variants import Wanted, download_name, primary_file, public_files
from storage.records.metrics.activity import Counted, Metric
from storage.records.policy.checks import check_fetched
from storage.records.policy.facts import version_facts
from storage.records.policy.signed_links import Link, file_subject
from storage.records.policy.viewers import Viewer
from storage.signing import is_signed, link_query

ROOT = "/api/download"

DownloadQuery = queried(
    {
        "type": (text_schema(), "For example Model or VAE."),
        "format": (text_schema(), "For example SafeTensor."),
        "size": (text_schema(), "full or pruned."),
        "fp": (text_schema(), "For example fp16."),
        "quantType": (text_schema(), "For example Q4_K_M."),
        "fileId": (integer_schema(), "One file."),
        "token": (text_schema(), "A key, for programs that can send no header. It is not logged."),
    }
)


class ModelDownloads(Controller):
    """Bytes of published files."""

    path = ROOT
    tags = ("Downloads",)

    @route(
        "/models/{version_id:int}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        guards=[Reads(Scope.MODELS_READ, by_token=True)],
        opt={LIMITED_AS: RateKind.DOWNLOADS},
        operation_class=DownloadQuery,
        # As at Civitai; the second address can be asked for ranges without a key.
        status_code=307,
        responses={
            307: ResponseSpec(None, description="Location is the file's address, which accepts Range for a while"),
            **can_return(401, 403, 404, 410, 422),
        },
        summary="A version's file",
    )
    async def of_version(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        state: State,
        viewer: RequestViewer,
        version_id: FromPath[int],
    ) -> Response[None]:
        """Leads to the primary file, or to the best of those that fit what is asked for. A GET counts as a download."""
        query = QueryParameters(request)
        wanted = Wanted(
            file_id=query.number("fileId"),
            type=query.text("type"),
            format=query.text("format"),
            size=query.text("size"),
            fp=query.text("fp"),
            quant_type=query.text("quantType"),
        )
        query.check()
        model, version, file = await stores.database.run(_chosen(version_id, wanted, viewer))
        name = download_name(model, version, file)
        # A HEAD takes no bytes.
        if request.method == HttpMethod.GET:
            cast(ActivityBuffer, state.activity_buffer).add(Counted.VERSION, version_id, Metric.DOWNLOAD)
        expires = int(time.time()) + stores.settings.api.download_link_seconds
        link = Link(subject=file_subject(file.id, name), reader=number_of(request), expires=expires)
        query = link_query(link, stores.settings.api.signing_keys)
        # Clients that follow by hand take the file's name from here.
        saved_as = urlencode({"response-content-disposition": f'attachment; filename="{name}"'})
        place = f"{ROOT}/files/{file.id}/{quote(name, safe='')}?{query}&{saved_as}"
        # The address expires, so nobody may keep where this led to.
        return Response(None, status_code=307, headers={"Location": place, "Cache-Control": "no-store"})

    @downloads.read_route(
        "/files/{file_id:int}/{name:str}",
        guards=[Open("the signature in the address opens this one file until it expires")],
        summary="One file behind a signed link",
    )
    async def file(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        file_id: FromPath[int],
        name: FromPath[str],
        expires: Annotated[int, Parameter(ge=0, le=2**53, description="Unix seconds.")],
        signature: Annotated[str, Parameter(min_length=1, max_length=128)],
        reader: LinkReader = None,
    ) -> Response[Any]:
        """The bytes, whole or a range; the ETag is their SHA-256.

        The account `for` which the link was made must still be allowed to have them.
        """
        link = Link(subject=file_subject(file_id, name), reader=reader, expires=expires)
        if not is_signed(link, signature, stores.settings.api.signing_keys, int(time.time())):
            raise LinkRefused("The link is not signed by us or has expired. Begin at the version's download address.")
        found = await stores.database.run(policy.file_by_id(file_id, reader))
        check_fetched(found.viewer, found.facts)
        wanted = downloads.Download(found.file.sha256, found.file.size, name, "application/octet-stream")
        return await downloads.respond(request, stores.blobs, wanted)


def _chosen(version_id: int, wanted: Wanted, viewer: Viewer) -> Script[tuple[Model, ModelVersion, VersionFile]]:
    """The file that a download asks for. Raises NotFound, Gone, Unauthenticated."""
    model, version = yield from read_version(version_id, viewer)
    check_fetched(viewer, version_facts(model, version))
    # What fits first, then the primary among those: a variant asked for by name must not lose to the default one.
    fitting = [file for file in public_files((yield from catalog.files(version_id))) if wanted.fits(file)]
    file = primary_file(fitting) or next(iter(fitting), None)
    if file is None:
        raise NotFound(f"File not found: model version {version_id} has none that is all of what was asked for.")
    return model, version, file
