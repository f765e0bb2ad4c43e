"""One log line for each request, when it is over: never its query, its address or its key.

`2026-11-28T12:00:01.203Z INFO darkroom.api: GET /api/v1/models/{model_id} 200 ms=3.1 account=... request_id=...`: the
route instead of the path, which may hold names, and the account instead of the key. Whatever is logged while a request
is worked on has its id too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol, cast
from uuid import UUID

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from platform_api.http.headers import REFUSED, ROUTE, STATUS, request_id
from storage.logs import CONTEXT

LOG = logging.getLogger("darkroom.api")
UNMATCHED = "unmatched"
"""The route of a request whose address is none of ours."""


class _HasAccount(Protocol):
    """What the guards leave in the state of a request with a working key."""

    @property
    def account_id(self) -> UUID: ...


def logging_requests(app: ASGIApp) -> ASGIApp:
    """The application, with a log line for each request and the request's id in every line."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.perf_counter()
        token = CONTEXT.set({"request_id": request_id(scope)})
        cut: str | None = None
        try:
            await app(scope, receive, send)
        # Also a cancellation: a client that went away has its line, too.
        except BaseException as error:
            cut = type(error).__name__
            raise
        finally:
            _log(cast(HTTPScope, scope), time.perf_counter() - began, cut)
            CONTEXT.reset(token)

    return cast(ASGIApp, handle)


def _log(scope: HTTPScope, seconds: float, cut: str | None) -> None:
    state = cast(Mapping[str, Any], scope["state"])
    status = cast(int, state.get(STATUS, 0))
    caller = cast(_HasAccount | None, state.get("caller"))
    fields = {"ms": round(seconds * 1000, 1)}
    more = {"account": caller and str(caller.account_id), "refused": state.get(REFUSED), "cut": cut}
    LOG.log(
        logging.WARNING if status >= 500 or not status else logging.INFO,
        "%s %s %s",
        scope["method"],
        state.get(ROUTE, UNMATCHED),
        status,
        extra={"fields": fields | {name: value for name, value in more.items() if value is not None}},
    )
