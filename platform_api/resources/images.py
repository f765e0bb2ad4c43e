"""Single images behind signed links, for pages that cannot send a key: Prefect's artifacts, an e-mail, a report."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from litestar import Controller, Request, Response
from litestar.params import Parameter

from platform_api import downloads
from platform_api.access import Open
from platform_api.resources.views import API
from storage.blobs.store import BlobStore
from storage.errors import BlobMissing, LinkRefused, NotFound
from storage.records.access import link_is_signed
from storage.stores import AsyncStores

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class Images(Controller):
    """Signed image links."""

    path = "/images"
    tags = ("Images",)

    @downloads.read_route(
        "/{sha256:str}",
        guards=[Open("the signature in the address opens this one image until it expires")],
        summary="An image behind a signed link",
    )
    async def show(
        self,
        request: Request[Any, Any, Any],
        stores: AsyncStores,
        sha256: str,
        expires: Annotated[int, Parameter(ge=0, le=2**53, description="Unix seconds.")],
        signature: Annotated[str, Parameter(min_length=1, max_length=128)],
    ) -> Response[Any]:
        """The image, shown in the page that links it."""
        key, now = stores.settings.api.signing_key.get_secret_value(), int(time.time())
        if not link_is_signed(f"{API}/images/{sha256}", expires, signature, key, now):
            raise LinkRefused("The link is not signed by us or has expired. Load the page that shows it again.")
        try:
            size, media_type = await asyncio.to_thread(_measure, stores.blobs, sha256)
        except BlobMissing as error:
            raise NotFound("The image is gone.") from error
        headers = {
            "Content-Disposition": "inline",
            "Cache-Control": f"private, immutable, max-age={min(expires - now, 86400)}",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        wanted = downloads.Download(sha256, size, f"{sha256}.png", media_type, headers)
        return await downloads.respond(request, stores.blobs, wanted)


def _measure(blobs: BlobStore, sha256: str) -> tuple[int, str]:
    """How many bytes an image has and what it is, by its first bytes."""
    with blobs.open(sha256) as stream:
        head = stream.read(16)
        size = stream.seek(0, 2)
    kinds = (kind for start, kind in _SIGNATURES.items() if head.startswith(start))
    return size, next(kinds, "application/octet-stream")
