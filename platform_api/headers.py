"""What every answer carries: the request's id, how often it may be asked, and headers that give nothing away.

Pages of any origin may read the API and send it keys, because nothing in it acts on who a browser is: there are no
cookies, so a page can do no more than a program without a browser. One log line a request.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from litestar.datastructures import MutableScopeHeaders
from litestar.types import HTTPScope, Message, Scope

from platform_api.rates import LIMIT, REMAINING, RESET, rate_headers

LOG = logging.getLogger("darkroom.api")
REQUEST_ID = "X-Request-Id"
_PLAIN_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

EXPOSED = (
    *(LIMIT, REMAINING, RESET, REQUEST_ID, "X-Ignored-Parameters"),
    *("Retry-After", "ETag", "Location", "Content-Range", "Accept-Ranges", "Content-Disposition", "Allow"),
    *("Upload-Offset", "Upload-Length", "Upload-Expires", "Upload-Metadata"),
    *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
)
"""What a page's script may read of an answer."""

SAFE: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": ", ".join(EXPOSED),
}
"""Set unless the route has set its own."""

PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, *",  # the star leaves Authorization out
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
    state["request_id"] = sent if _PLAIN_ID.fullmatch(sent) else secrets.token_hex(8)
    return str(state["request_id"])


async def complete_headers(message: Message, scope: Scope) -> None:
    """Add what every answer carries to the start of a response, and write the request's log line."""
    if message["type"] != "http.response.start" or scope["type"] != "http":
        return
    identity = request_id(scope)
    headers = cast(MutableMapping[str, str], MutableScopeHeaders.from_message(message))
    headers[REQUEST_ID] = identity
    for name, value in SAFE.items():
        headers.setdefault(name, value)
    method = cast(HTTPScope, scope)["method"]
    for name, value in (PREFLIGHT if method == "OPTIONS" else rate_headers(scope)).items():
        headers[name] = value
    LOG.info("%s %s %s request=%s", method, _plain(scope["path"]), message["status"], identity)


def _plain(path: str) -> str:
    return path.encode("ascii", "backslashreplace").decode()[:300]
