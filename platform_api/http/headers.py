"""What every response carries: the request's id, how often it may be asked, and headers that give nothing away.

Pages of any origin may read the API and send it keys, because nothing in it acts on who a browser is: there are no
cookies, so a page can do no more than a program without a browser.

Not Litestar's CORSConfig: it writes through a mapping of headers, which took a tenth of a response's whole time, and
responds to a preflight before the request has an id. Here constant headers are added to a list.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, cast

from litestar.types import HTTPScope, Message, Scope

from platform_api.http.rate_limits import LIMIT, REMAINING, RESET, rate_headers

REQUEST_ID = "X-Request-Id"
EVENT_STREAM = "text/event-stream"
"""The media type of server-sent events."""
STATUS, ROUTE, REFUSED = "response_status", "response_route", "refused_as"
"""What a request's state keeps for its log line."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

EXPOSED = (
    *(LIMIT, REMAINING, RESET, REQUEST_ID, "X-Ignored-Parameters"),
    *("Retry-After", "ETag", "Location", "Content-Range", "Accept-Ranges", "Content-Disposition", "Allow"),
    *("Upload-Offset", "Upload-Length", "Upload-Expires", "Upload-Metadata"),
    *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
)
"""What a page's script may read of a response."""

SAFE: Mapping[str, str] = {
    # What others have uploaded may be a page: opened in a tab, it must run nothing under this origin.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    # The default is the safe one: a route that may be kept says so.
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Access-Control-Allow-Origin": "*",
}
"""Set unless the route has set its own."""

CROSS_ORIGIN: Mapping[str, str] = {"Access-Control-Expose-Headers": ", ".join(EXPOSED)}
"""What a page of another origin may read."""

PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, *",  # the star leaves Authorization out
    # Chromium keeps a preflight for no longer.
    "Access-Control-Max-Age": "7200",
}
"""What a browser asks before requests that are not plain, by OPTIONS."""


def request_id(scope: Scope) -> str:
    """The id of a request: the caller's own X-Request-Id when it is plain, else a new one."""
    state = cast(dict[str, Any], scope)["state"] = cast(dict[str, Any], cast(dict[str, Any], scope).get("state", {}))
    known = state.get("request_id")
    if isinstance(known, str):
        return known
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    # Only plain ids: it goes into log lines, tags and the response's header, where a line's end would be another line
    # or header.
    state["request_id"] = sent if _PLAIN_ID.fullmatch(sent) else secrets.token_hex(8)
    return str(state["request_id"])


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


_SAFE, _PREFLIGHT, _CROSS_ORIGIN = _encoded(SAFE), _encoded(PREFLIGHT), _encoded(CROSS_ORIGIN)
_REQUEST_ID = REQUEST_ID.lower().encode()


async def complete_headers(message: Message, scope: Scope) -> None:
    """Add what every response carries to the start of a response, and keep what its log line says.

    On the pairs themselves: through a mapping of headers this took a tenth of a response's whole time.
    """
    if message["type"] != "http.response.start" or scope["type"] != "http":
        return
    identity, method = request_id(scope), cast(HTTPScope, scope)["method"]
    own = list(message["headers"])
    present = {name.lower() for name, _ in own}
    message["headers"] = [
        *own,
        (_REQUEST_ID, identity.encode()),
        *(pair for pair in _SAFE if pair[0] not in present),
        *(_PREFLIGHT if method == "OPTIONS" else _encoded(rate_headers(scope))),
        # Only to pages: other clients are spared the list.
        *(_CROSS_ORIGIN if any(name == b"origin" for name, _ in scope["headers"]) else ()),
    ]
    state = cast(dict[str, Any], scope["state"])
    state[STATUS] = message["status"]
    if "path_template" in scope:
        state[ROUTE] = scope["path_template"]
