"""Responses of the catalogue: bytes with a validator that caches must ask about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec

from platform_api.cache import response_cache
from storage.postgres.events.watch import Dependencies

T = TypeVar("T")

IGNORED = "X-Ignored-Parameters"


def respond(
    request: Request[Any, Any, Any],
    content: T,
    *,
    ignored: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    dependencies: Dependencies | None = None,
) -> Response[T]:
    """JSON that a cache keeps and asks about each time, so that what is hidden is not shown for another moment.

    With its `dependencies` it is kept here, too, where the route is cached: it must be what anybody is shown.
    """
    # Encoded here and not by the framework: its hash is the validator, and the same bytes are kept.
    body = msgspec.json.encode(content)
    # Of the bytes, not of a revision: what is shown also depends on the reader, the host and the counts.
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    keyed = "authorization" in request.headers
    whole = {
        "ETag": etag,
        "Cache-Control": f"{'private' if keyed else 'public'}, max-age=0, must-revalidate",
        # A proxy must not give one reader's response to another; links in it begin with the host that was asked.
        "Vary": "Authorization, Host",
        **(headers or {}),
    }
    if ignored:
        # Names that the client has sent, in a header: quoted and cut, or they could end it.
        whole[IGNORED] = ", ".join(quote(name[:60], safe="") for name in ignored[:50])
    if dependencies is not None:
        sent = [(b"content-type", b"application/json"), *((n.lower().encode(), v.encode()) for n, v in whole.items())]
        response_cache.keep(request.scope, sent, body, etag, dependencies)
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        # The type is for the document; what goes out is bytes already.
        return Response(cast(T, b""), status_code=304, media_type="application/json", headers=whole)
    return Response(cast(T, body), media_type="application/json", headers=whole)


UNCHANGED = {304: ResponseSpec(None, description="The client's copy, named by If-None-Match, is still good")}
