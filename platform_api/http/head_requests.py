"""HEAD wherever there is GET (RFC 9110): the framework serves it only on routes that name it.

A route that names it responds by itself, without reading what it would send. Everywhere else HEAD is the GET, whose
body the server does not send. A stream of events has no HEAD: it ends only when its reader goes.
"""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.utils.path import normalize_path

from platform_api.http.headers import EVENT_STREAM


def handling_head(app: Litestar) -> ASGIApp:
    """The application, with HEAD for every GET that ends."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not _stands_for_get(app, scope["path"]):
            await app(scope, receive, send)
        else:
            await app(cast(Scope, {**scope, "method": "GET"}), receive, send)

    return cast(ASGIApp, handle)


def _stands_for_get(app: Litestar, path: str) -> bool:
    """Whether the route at `path` has GET and not HEAD."""
    # Litestar's own look-up, since only it knows which of several patterns a path belongs to.
    route_of = cast(Any, app.asgi_router).handle_routing
    try:
        route_of(path=normalize_path(path), method="HEAD")
    except MethodNotAllowedException:
        try:
            return route_of(path=normalize_path(path), method="GET")[1].media_type != EVENT_STREAM
        except MethodNotAllowedException:
            return False
    except NotFoundException:
        return False
    return False
