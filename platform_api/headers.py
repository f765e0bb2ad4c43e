"""What every answer carries: the request's id, and headers that give nothing away. One log line a request."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from litestar.datastructures import MutableScopeHeaders
from litestar.types import HTTPScope, Message, Scope

LOG = logging.getLogger("darkroom.api")
REQUEST_ID = "X-Request-Id"
_PLAIN_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")

SAFE: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Set unless the route has set its own."""


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
    LOG.info(
        "%s %s %s request=%s", cast(HTTPScope, scope)["method"], _plain(scope["path"]), message["status"], identity
    )


def _plain(path: str) -> str:
    return path.encode("ascii", "backslashreplace").decode()[:300]
