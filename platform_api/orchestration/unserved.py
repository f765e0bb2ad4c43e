"""Routes of Civitai's orchestration that clients have and that are not served here: each says so by its name."""

from __future__ import annotations

from typing import Any

from litestar import Controller, HttpMethod, Request, route

from platform_api.access.guards import Open
from platform_api.orchestration.refusals import NotServed

_REASONS = {
    "services": "what can be drawn is at GET /api/v1/generations/backends, and its price at "
    "POST /v2/consumer/workflows?whatif=true",
    "streaming-blobs": "blobs are pictures here, and none is a stream",
    "archive": "no archive is made here; ask for each blob",
    "blocked": "no picture is blocked here, so that none has a placeholder",
    "civitai": "nothing is kept here of accounts at Civitai",
}


class Unserved(Controller):
    """What is refused by its name."""

    path = "/"
    guards = (Open("a refusal says nothing of anybody's"),)
    include_in_schema = False

    @route(
        ["/services", "/services/{rest:path}", "/consumer/streaming-blobs/{rest:path}"],
        http_method=[HttpMethod.GET],
    )
    async def services(self, request: Request[Any, Any, Any]) -> None:
        """Raises NotServed."""
        raise _refusal(request)

    @route(["/consumer/blobs/archive/{rest:path}", "/consumer/blobs/blocked/{rest:path}"], http_method=[HttpMethod.GET])
    async def blobs(self, request: Request[Any, Any, Any]) -> None:
        """Raises NotServed."""
        raise _refusal(request)

    @route("/consumer/civitai/{rest:path}", http_method=[HttpMethod.DELETE])
    async def caches(self, request: Request[Any, Any, Any]) -> None:
        """Raises NotServed."""
        raise _refusal(request)


def _refusal(request: Request[Any, Any, Any]) -> NotServed:
    path = request.scope["path"]
    word = next(word for word in _REASONS if f"/{word}" in path)
    return NotServed(f"{request.method} /v2/.../{word} is not served: {_REASONS[word]}.")
